"""Which segments is a person in?"""

from streams.rules.person import Person

REPEAT_BUYERS = "repeat_buyers"
"""The segment that is always there: people with two orders or more."""

_IN_REPEAT_BUYERS = (REPEAT_BUYERS,)


def segments_of(person: Person) -> tuple[str, ...]:
    """The ids of the segments that `person` is in now, sorted."""
    return _IN_REPEAT_BUYERS if person.orders >= 2 else ()
