"""Who is the person behind a pid, with all that is known under every identifier of theirs?"""

from streams.rules.person import Person


def whole_of(person: Person) -> Person:
    """The person that segments, journeys and traits are about; not to be changed."""
    return person
