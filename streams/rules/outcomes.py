"""How can the admission of an event end?"""

from dataclasses import dataclass

import msgspec

from schemas.events import BY_NAME, CampaignOfEvent, CampaignSpan, VisitChange


class Moved(msgspec.Struct, frozen=True, gc=False):
    """What belongs to another campaign from now on; see reattributed.avsc."""

    spans: list[CampaignSpan]
    events: list[CampaignOfEvent]
    visit_changes: list[VisitChange]


class Admitted(msgspec.Struct, frozen=True, gc=False):  # made for every event: 4x a dataclass
    """It counts: what the streams found out about it. `amount_micro` is in millionths.

    `moved` says what belongs to another campaign because of it.
    """

    campaign_id: str
    is_repeat_order: bool
    amount_micro: int | None
    currency: str
    visit_changes: list[VisitChange]
    attributed_by: int = BY_NAME
    moved: Moved | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same call came before; nothing happens."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Not allowed for this purpose ('analytics'), or the person is 'erased': leaves a count.

    `reason`: 'unknown' when nobody decided and the legal basis is consent, 'refused', or 'erased'.
    """

    purpose: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be used: where, why, and what was expected. Never a value of the event."""

    path: str
    reason: str
    expected: str


Outcome = Admitted | Duplicate | Withheld | Refused
WRONG_KEY = Refused("$", "wrong_key", "expected the record's key to be its pid")
WRONG_PARTITION = Refused(
    "$", "wrong_partition", "expected the partition that murmur2_random gives; set the partitioner"
)
DUPLICATE = Duplicate()
ERASED = Withheld("erased", "erased")
