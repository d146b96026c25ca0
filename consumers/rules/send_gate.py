"""May a message go to this person, over this channel, on this topic, now?

A message that advertises needs two yeses, each of which is asked for by itself: the purpose
`advertising` (by default with consent as its basis, GDPR Art. 6(1)(a)), and a subscription of the
channel's topic, which always needs consent (ePrivacy Directive Art. 13(1)).
"""

from collections.abc import Sequence
from typing import Literal

from schemas.consent import Basis, allowed_now, decisions_on
from schemas.decisions import consents_on_topic
from schemas.subjects import Consent

PURPOSE = "advertising"

Refusal = Literal["erased", "unknown_person", "purpose", "subscription"]
"""The rule that forbids a message: the person was erased, or is nobody whom we know; the purpose is
not allowed; the channel's topic is not subscribed."""


def refusal_of(
    basis: Basis, decided: Sequence[Consent], channel: str, topic: str, now_ms: int
) -> Refusal | None:
    """The first rule that forbids it; None if it may go. `basis` is that of the purpose."""
    if not allowed_now(basis, decisions_on(f"purpose/{PURPOSE}", decided), now_ms):
        return "purpose"
    if not allowed_now("consent", consents_on_topic(channel, topic, decided), now_ms):
        return "subscription"
    return None
