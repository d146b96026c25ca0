"""What must a request say that records a decision, and what does it mean?

Bodies are checked field by field (types, lengths, words), then as a whole: a purpose takes other
words than a subscription, and only purposes that the configuration declares can be decided on.
Names of channels and topics are plain: they travel readable, so they must not be able to hold a
person.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from schemas.decisions import PENDING, PURPOSE_STATUSES, TOPIC_STATUSES, Decision, Proof
from schemas.minors import EXPECTED_BAND, youngest_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]


class ProofBody(BaseModel):
    """How the decision came about (GDPR Art. 7(1))."""

    model_config = ConfigDict(extra="forbid")

    method: Line | None = Field(None, description="form, double_opt_in, import, phone ...")
    text_version: Line | None = Field(None, description="Version of the text that was shown")
    text: str | None = Field(
        None, max_length=65_536, description="That text; only its SHA-256 is kept"
    )
    text_hash: Sha256 | None = Field(None, description="SHA-256 of that text, in hex")
    language: Line | None = Field(None, description="BCP 47")
    jurisdiction: Line | None = Field(None, description="ISO 3166")
    age_band: Line | None = Field(None, description="How old in years: 0-12, 13-15, 18+ ...")
    authorised_by: Literal["self", "guardian"] | None = Field(
        None, description="Who decided; a guardian for a child (GDPR Art. 8)"
    )


class ConsentBody(BaseModel):
    """A decision on a `purpose`, or on a `channel` and `topic`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "subject": "user:42",
                    "purpose": "analytics",
                    "status": "withdrawn",
                    "source": "preference-form",
                    "proof": {"method": "form", "text_version": "2026-01", "language": "en"},
                }
            ]
        },
    )

    subject: str = Field(
        max_length=600, description="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
    )
    purpose: Name | None = None
    channel: Name | None = None
    topic: Name | None = Field(None, description="Or 'all'")
    status: Literal["granted", "denied", "withdrawn", "subscribed", "unsubscribed", "pending"]
    valid_from: AwareDatetime | None = Field(None, description="When recorded, if left out")
    valid_to: AwareDatetime | None = Field(None, description="Without end, if left out")
    source: Line = "api"
    proof: ProofBody = ProofBody()


@dataclass(frozen=True, slots=True)
class Misfit:
    """What in a body does not go together: where, and what belongs there."""

    path: str
    expected: str


def read_decision(body: ConsentBody, purposes: Collection[str]) -> Decision | Misfit:
    """The decision in `body`, or the first thing that does not go together."""
    if (body.purpose is None) == (body.channel is None and body.topic is None):
        return Misfit("$.purpose", "either a purpose, or a channel and a topic")
    if body.purpose is not None:
        about = f"purpose/{body.purpose}"
        if body.purpose not in purposes:
            return Misfit("$.purpose", f"one of {', '.join(sorted(purposes))}")
        if body.status not in PURPOSE_STATUSES:
            return Misfit("$.status", f"for a purpose one of {', '.join(PURPOSE_STATUSES)}")
    else:
        about = f"{body.channel}/{body.topic}"
        if body.channel is None or body.channel == "purpose":
            return Misfit("$.channel", "the name of a channel, such as email, beside a topic")
        if body.topic is None:
            return Misfit("$.topic", "the name of a topic beside a channel, or all")
        words = (*TOPIC_STATUSES, PENDING)
        if body.status not in words:
            return Misfit("$.status", f"for a channel and topic one of {', '.join(words)}")
    begins, ends = _ms(body.valid_from), _ms(body.valid_to)
    if begins is not None and begins < 0:
        return Misfit("$.valid_from", "a time after 1970")
    if ends is not None and ends <= (begins or 0):
        return Misfit("$.valid_to", "a time after valid_from")
    proof = body.proof
    if proof.age_band is not None and youngest_of(proof.age_band) is None:
        return Misfit("$.proof.age_band", EXPECTED_BAND)
    text_hash = bytes.fromhex(proof.text_hash) if proof.text_hash is not None else None
    if proof.text is not None:
        hashed = hashlib.sha256(proof.text.encode()).digest()
        if text_hash not in (None, hashed):
            return Misfit("$.proof.text_hash", "the SHA-256 of $.proof.text, or one of the two")
        text_hash = hashed
    return Decision(
        about,
        body.status,
        body.source,
        Proof(
            proof.method,
            proof.text_version,
            text_hash,
            proof.language,
            proof.jurisdiction,
            proof.age_band,
            proof.authorised_by,
        ),
        begins,
        ends,
    )


def missing_in_list(body: ConsentBody, now_ms: int) -> list[Misfit]:
    """What a row of a list lacks to be provable: its proof, and when it was decided."""
    missing = missing_proof(body)
    at_ms = _ms(body.valid_from)
    if at_ms is None or at_ms > now_ms:
        missing.append(Misfit("$.valid_from", "when it was decided, not later than now"))
    return missing


def missing_in_grant(body: ConsentBody) -> list[Misfit]:
    """What a yes lacks to be provable. A no lacks nothing: withdrawing is as easy as giving (GDPR
    Art. 7(3)); nor does a subscription that is pending, whose confirmation has its own proof."""
    return missing_proof(body) if body.status in ("granted", "subscribed") else []


def missing_proof(body: ConsentBody) -> list[Misfit]:
    """Which of it is left out (GDPR Art. 7(1)): where the decision comes from, how it was made, and
    which text the person saw."""
    missing = []
    if "source" not in body.model_fields_set:
        missing.append(Misfit("$.source", "where the decision comes from: a form, a list's vendor"))
    if body.proof.method is None:
        missing.append(Misfit("$.proof.method", "how it was decided: form, double_opt_in, phone"))
    if body.proof.text_version is None:
        missing.append(Misfit("$.proof.text_version", "the version of the text that was shown"))
    return missing


def needs_guardian(age_of_consent: int) -> Misfit:
    """What a yes of somebody too young needs (GDPR Art. 8(1))."""
    return Misfit(
        "$.proof.authorised_by",
        f"guardian, because the person is or may be younger than {age_of_consent}",
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // _MILLISECOND
