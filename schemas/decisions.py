"""Is what somebody decided new, and under which id does it go on record?

The same decision comes again: a request is repeated after a timeout, a list is imported twice, a
browser stamps every call with what it remembers. A record for each would bury the decisions, and an
old list would undo a withdrawal of yesterday. So every decision is compared with what is known of
the person on the same matter, and how it came (its way) tells what counts as news.

A record's id is a hash of what was decided and of the record that it follows. Told twice, a
decision has one id; granted, withdrawn and granted again are three.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from schemas.minors import GUARDIAN, Age, age_of_change
from schemas.requests import ConsentChanged
from schemas.subjects import Consent

RECORD_ID_BYTES = 16
PURPOSE_STATUSES = ("granted", "denied", "withdrawn")
TOPIC_STATUSES = ("subscribed", "unsubscribed")
PENDING = "pending"
"""Somebody asked to subscribe, and has not confirmed yet that it is them: no yes."""
STAMPED_METHOD = "sdk"
"""The method of a decision that only a stamp said, and of no other."""
ALL_TOPICS = "all"
"""The topic that stands for every one of its channel."""

Way = Literal["said", "listed", "stated", "stamped"]
"""How a decision came: `said` just now by the person or to our desk; `listed`, at the time that it
names, in a list; `stated` by a shop's call made for that, at the time that the call names;
`stamped` on a call made for something else, which tells what a browser remembers."""

_YES = frozenset({"granted", "subscribed"})


@dataclass(frozen=True, slots=True)
class Proof:
    """How it came about (GDPR Art. 7(1)); `text_hash` is the SHA-256 of what the person read.

    `age_band` and `authorised_by` (GDPR Art. 8) as in schemas/minors.py.
    """

    method: str | None = None
    text_version: str | None = None
    text_hash: bytes | None = None
    language: str | None = None
    jurisdiction: str | None = None
    age_band: str | None = None
    authorised_by: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision on one matter: 'purpose/analytics', or channel and topic 'email/newsletter'.

    Without `valid_from_ms` it holds from when it is recorded, without `valid_to_ms` without end.
    """

    subject_of: str
    status: str
    source: str
    proof: Proof = Proof()
    valid_from_ms: int | None = None
    valid_to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A decision on record, as far as later ones need it.

    `is_stamp`: only a stamp said it; `is_guardians`: a guardian authorised it; `age` as it told.
    """

    consent: Consent
    record_id: bytes
    content: bytes
    is_stamp: bool = False
    is_guardians: bool = False
    age: Age | None = None


@dataclass(frozen=True, slots=True)
class News:
    """A record to be written, and how it will be known."""

    change: ConsentChanged
    known: Known


def content_of(pid: bytes, decision: Decision) -> bytes:
    """16 bytes that stand for who decided what, and how that is proven."""
    proof = decision.proof
    parts = [
        pid.hex(),
        decision.subject_of,
        decision.status,
        decision.source,
        decision.valid_from_ms,
        decision.valid_to_ms,
        proof.method,
        proof.text_version,
        proof.text_hash.hex() if proof.text_hash is not None else None,
        proof.language,
        proof.jurisdiction,
    ]
    if proof.age_band is not None or proof.authorised_by is not None:
        # Only then, so that what was recorded before these were known keeps its hash.
        parts += (proof.age_band, proof.authorised_by)
    return _hash(json.dumps(parts).encode())


def newest_of(known: Iterable[Known]) -> Known | None:
    """The one that was recorded last; of several in one millisecond, a refusal."""
    return max(
        known,
        key=lambda each: (each.consent.recorded_at_ms, each.consent.status not in _YES),
        default=None,
    )


def news_of(
    pid: bytes,
    decision: Decision,
    known: Sequence[Known],
    *,
    way: Way,
    legal_basis: str,
    now_ms: int,
    skew_ms: int = 0,
    age_of_consent: int | None = None,
) -> News | None:
    """What is to be recorded of `decision`; None when it changes nothing that is `known` on it.

    `now_ms` is when it reached us. `skew_ms`: so wrong may the clock be that dated what was stated
    or stamped. `age_of_consent` is what was applied to it. Times on one matter rise, whatever
    clocks say: a withdrawal that is recorded by a machine whose clock is behind must still be the
    newest.
    """
    newest = newest_of(known)
    is_yes = decision.status in _YES
    if way in ("stated", "stamped") and not _changes(is_yes, newest, way, now_ms):
        return None  # by far the most, so before anything costs
    content = content_of(pid, decision)
    if newest is not None and newest.content == content:
        return None
    if decision.status == PENDING and _says_yes(newest, now_ms):
        return None  # whoever asks to subscribe an address again must not silence it
    valid_from_ms = decision.valid_from_ms
    if way != "said" and valid_from_ms is not None:
        in_force = [each for each in known if each.consent.valid_from_ms <= now_ms]
        latest = max((each.consent.valid_from_ms for each in in_force), default=None)
        if way == "listed" and latest is not None:
            if valid_from_ms < latest:
                return None
            if valid_from_ms == latest and (is_yes or not _says_yes(newest, now_ms)):
                return None  # of two rows of one time the refusal stands, in either order
        elif latest is not None and valid_from_ms < latest:
            if is_yes or valid_from_ms < latest - skew_ms:
                return None
            # Decided at about the same time by two clocks: a refusal is never lost to that.
            valid_from_ms = None
    return _news(
        pid, decision, content, newest, valid_from_ms, way, legal_basis, now_ms, age_of_consent
    )


def _changes(is_yes: bool, newest: Known | None, way: Way, now_ms: int) -> bool:
    """True if a yes or no of a shop's call is another one than what is known.

    A stamp's yes never lifts a refusal that more than a stamp said: the browser of somebody who
    unsubscribed by mail goes on stamping what it remembers.
    """
    if newest is None or _is_over(newest, now_ms):
        return True
    if (newest.consent.status in _YES) == is_yes:
        return False
    return not is_yes or way == "stated" or newest.is_stamp


def _news(
    pid: bytes,
    decision: Decision,
    content: bytes,
    newest: Known | None,
    valid_from_ms: int | None,
    way: Way,
    legal_basis: str,
    now_ms: int,
    age_of_consent: int | None,
) -> News:
    recorded_at_ms = now_ms
    if newest is not None:
        recorded_at_ms = max(now_ms, newest.consent.recorded_at_ms + 1)
    if valid_from_ms is None:
        valid_from_ms = recorded_at_ms
    record_id = _hash(content + (newest.record_id if newest is not None else b""))
    consent = Consent(
        decision.subject_of, decision.status, valid_from_ms, decision.valid_to_ms, recorded_at_ms
    )
    kind, _, name = decision.subject_of.partition("/")
    is_purpose = kind == "purpose"
    proof = decision.proof
    change = ConsentChanged(
        record_id=record_id,
        pid=pid,
        purpose=name if is_purpose else None,
        channel=None if is_purpose else kind,
        topic=None if is_purpose else name,
        legal_basis=legal_basis,
        status=decision.status,
        valid_from_ms=valid_from_ms,
        valid_to_ms=decision.valid_to_ms,
        recorded_at_ms=recorded_at_ms,
        source=decision.source,
        method=proof.method,
        text_version=proof.text_version,
        text_hash=proof.text_hash,
        language=proof.language,
        jurisdiction=proof.jurisdiction,
        age_band=proof.age_band,
        authorised_by=proof.authorised_by,
        age_of_consent=age_of_consent if proof.age_band is not None else None,
    )
    known = Known(
        consent,
        record_id,
        content,
        is_stamp=way == "stamped",
        is_guardians=proof.authorised_by == GUARDIAN,
        age=age_of_change(change),
    )
    return News(change, known)


def known_of_change(change: ConsentChanged) -> Known:
    """How a record is known, by the record alone. That it began when it was recorded means that no
    other time was given: so its repetition is recognised."""
    about = subject_of_change(change)
    begins = change.valid_from_ms
    proof = Proof(
        change.method,
        change.text_version,
        change.text_hash,
        change.language,
        change.jurisdiction,
        change.age_band,
        change.authorised_by,
    )
    given = None if begins == change.recorded_at_ms else begins
    decision = Decision(about, change.status, change.source, proof, given, change.valid_to_ms)
    consent = Consent(about, change.status, begins, change.valid_to_ms, change.recorded_at_ms)
    is_stamp = change.method == STAMPED_METHOD
    is_guardians = change.authorised_by == GUARDIAN
    content = content_of(change.pid, decision)
    return Known(consent, change.record_id, content, is_stamp, is_guardians, age_of_change(change))


def subject_of_change(change: ConsentChanged) -> str:
    """'purpose/analytics' or 'email/newsletter'."""
    if change.purpose is not None:
        return f"purpose/{change.purpose}"
    return f"{change.channel}/{change.topic}"


def consents_on_topic(channel: str, topic: str, consents: Iterable[Consent]) -> list[Consent]:
    """What decides whether a message on `topic` may go to `channel`, as decisions on one matter:
    those on the topic and those on all topics. For schemas.consent.allowed_now."""
    wanted = {f"{channel}/{topic}", f"{channel}/{ALL_TOPICS}"}
    return [c for c in consents if c.subject_of in wanted]


def _says_yes(known: Known | None, now_ms: int) -> bool:
    return known is not None and known.consent.status in _YES and not _is_over(known, now_ms)


def _is_over(known: Known, now_ms: int) -> bool:
    return known.consent.valid_to_ms is not None and known.consent.valid_to_ms <= now_ms


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=RECORD_ID_BYTES).digest()
