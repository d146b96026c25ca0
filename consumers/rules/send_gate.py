"""May a message go to this person, over this channel, on this topic, now?

A message that advertises needs two yeses, each of which is asked for by itself: the purpose
`advertising` (by default with consent as its basis, GDPR Art. 6(1)(a)), and a subscription of the
channel's topic, which always needs consent (ePrivacy Directive Art. 13(1)).
"""

from collections.abc import Sequence
from typing import Literal

from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.decisions import consents_on_topic
from schemas.subjects import Consent

PURPOSE = "advertising"

Refusal = Literal["erased", "unknown_person", "purpose", "subscription"]
"""The rule that forbids a message: the person was erased, or is nobody whom we know; the purpose is
not allowed; the channel's topic is not subscribed."""


def refusal_of(
    basis: Basis, decided: Sequence[Sequence[Consent]], channel: str, topic: str, now_ms: int
) -> Refusal | None:
    """The first rule that forbids it; None if it may go. `basis` is that of the purpose; `decided`
    are the decisions of each pid of the person."""
    on_purpose = [decisions_on(f"purpose/{PURPOSE}", each) for each in decided]
    if not allowed_now_in_all(basis, on_purpose, now_ms):
        return "purpose"
    on_topic = [consents_on_topic(channel, topic, each) for each in decided]
    if not allowed_now_in_all("consent", on_topic, now_ms):
        return "subscription"
    return None
