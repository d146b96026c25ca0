"""What is an event, from the collector to the stores?

`Collected` is one call of Segment's protocol after identifiers were resolved and everything
personal was sealed; `Accepted` is the same call with what the streams added; `Rejected` points at
one that was set aside; `Retracted` takes back what its person does not allow any more, and
`Reattributed` gives what is counted to other campaigns. Field by field, units and meaning stand in
the Avro files beside this module; these types mirror them in order, which a test holds.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from schemas.subjects import Consent

NO_CAMPAIGN = "(none)"
"""The campaign of an event that names none; listed like any other."""

MADE_CONTEXT: Final[Mapping[str, str]] = {
    "channel": "Way by which they came, like organic_search; made of campaign and referrer",
    "country": "ISO 3166 code of the country of the IP address, which itself is dropped",
    "device.type": "desktop, mobile, tablet, bot or other, by the user agent, which is dropped",
    "timezone": "IANA name of the time zone, as the call states it",
}
"""What the collector puts into the clear context, whatever `[fields.context]` says (ADR 0022)."""
BY_NAME = 1
"""The event names its campaign."""
BY_TOUCH = 2
"""It names none: it has that of the person's last touch in the window, or none."""
BY_ORDER = 3
"""A refund: it has that of its order."""

FLAG_CLAMPED = 1
FLAG_SKEW_CORRECTED = 2
FLAG_MESSAGE_ID_MADE = 4
FLAG_TIMESTAMP_MISSING = 8

EMAIL_EVENTS = frozenset(
    {
        "Email Sent",
        "Email Delivered",
        "Email Bounced",
        "Email Marked as Spam",
        "Email Suppressed",
        "Email Opened",
        "Email Link Clicked",
        "Unsubscribed",
    }
)
"""Events that happen to a mailbox: they make neither a visit nor a visitor."""


class SealedTrait(msgspec.Struct, frozen=True, gc=False):
    """One trait of an identify call: hashed name, and [name, value] sealed."""

    key: bytes
    sealed: bytes


class Collected(msgspec.Struct, frozen=True, gc=False):
    """One call as it lies in events.collected; see collected.avsc."""

    event_id: bytes
    pid: bytes
    source: str
    type: str
    event: str
    occurred_at_ms: int
    sent_at_ms: int | None
    received_at_ms: int
    flags: int
    body_digest: int
    clear: bytes
    traits: list[SealedTrait]
    key_version: int
    sealed: bytes


class VisitChange(msgspec.Struct, frozen=True, gc=False):
    """A visit that an event starts (+1) or takes back (-1)."""

    campaign_id: str
    started_at_ms: int
    delta: int


class Accepted(Collected, frozen=True, gc=False):
    """A call that passed every rule, with its coordinates; see accepted.avsc."""

    generation: int
    lane: int
    seq: int
    source_topic: str
    source_partition: int
    source_offset: int
    index: int
    campaign_id: str
    is_repeat_order: bool
    amount_micro: int | None
    currency: str
    visit_changes: list[VisitChange]
    attributed_by: int = 0
    """BY_NAME, BY_TOUCH or BY_ORDER; 0 in records of before."""


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """Why an event was set aside, and where it lies; never a value of it. See rejected.avsc."""

    stage: str
    topic: str | None
    partition: int | None
    offset: int | None
    source: str | None
    message_id: str | None
    path: str
    reason: str
    expected: str
    rejected_at_ms: int
    generation: int | None = None
    lane: int | None = None
    seq: int | None = None
    index: int | None = None


class Retracted(msgspec.Struct, frozen=True, gc=False):
    """Accepted events of the person may no longer be used for the purpose; see retracted.avsc."""

    pid: bytes
    purpose: str
    basis: str
    decisions: list[Consent]
    generation: int
    lane: int
    seq: int
    source_topic: str
    source_partition: int
    source_offset: int
    index: int
    late_grant_s: int = 0


class CampaignSpan(msgspec.Struct, frozen=True, gc=False):
    """Whatever happened from `from_ms`, inclusive, to `until_ms`, exclusive, by the last touch."""

    from_ms: int
    until_ms: int
    campaign_id: str


class CampaignOfEvent(msgspec.Struct, frozen=True, gc=False):
    """One event, by the first bytes of its event_id, and its campaign for good."""

    tie: bytes
    campaign_id: str


class Reattributed(msgspec.Struct, frozen=True, gc=False):
    """Accepted events of the person belong to other campaigns; see reattributed.avsc."""

    pid: bytes
    spans: list[CampaignSpan]
    events: list[CampaignOfEvent]
    visit_changes: list[VisitChange]
    generation: int
    lane: int
    seq: int
    source_topic: str
    source_partition: int
    source_offset: int
    index: int
