"""Is there room for more in what we know of a person?

A person is one record of `subjects`, written whole at every barrier, and a record has a limit at
the broker: one that outgrew it would stop its lane for good. Only an identifier that many share
("undefined", a test account) gets that far, so its further events are set aside, in sight, while
everybody else's go on.
"""

from streams.rules.outcomes import Refused
from streams.rules.person import Person
from streams.rules.validate import Money

FULL_BYTES = 1_048_576
"""One more event adds at most its own megabyte: far below the 8 MiB that the topic takes."""
MOST_VISITS = 50_000
"""A visit's campaign is a 16-bit index."""
MOST_DECISIONS = 10_000
"""Half a megabyte. Nobody changes their mind so often: it is a program."""
MOST_MICRO = (1 << 63) - 1
"""Avro's long."""

FULL = Refused(
    "$",
    "person_full",
    "expected a person with a history that fits one record; give everybody an id of their own",
)


def has_room(person: Person, money: Money | None) -> bool:
    """True while one more event, with `money`, fits."""
    if person.size >= FULL_BYTES or len(person.visits) >= MOST_VISITS:
        return False
    if money is None:
        return True
    most_yet = max(person.spent.get(money.currency, 0), person.refunded.get(money.currency, 0))
    return most_yet + money.amount_micro <= MOST_MICRO
