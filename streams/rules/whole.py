"""Who is the person behind a pid, with all that is known under every identifier of theirs?

The rules of the merge are schemas/persons.py, where those who read the records have them too.
"""

from schemas.persons import whole_subject
from streams.rules.person import Person, person_to_subject, subject_to_person


def whole_of(person: Person, visit_gap_ms: int) -> Person:
    """The person that segments, journeys and traits are about; not to be changed.

    Made once a barrier, when the person is settled (`forget_whole`), or when it is asked for first.
    """
    kinship = person.kinship
    if kinship is None or not kinship.members:
        return person
    whole: Person | None = kinship.whole
    if whole is None:
        whole = subject_to_person(whole_subject(person_to_subject(person), visit_gap_ms))
        kinship.whole = whole
    return whole


def forget_whole(person: Person) -> None:
    """Something of the person changed: the whole is made anew when it is asked for."""
    if person.kinship is not None:
        person.kinship.whole = None


def is_whole(person: Person) -> bool:
    """False of a pid that belongs to another's person: in no segment, with no journey."""
    return person.kinship is None or person.kinship.moved_to is None
