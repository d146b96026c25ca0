"""How is it told what a person decided: now, and when and how they came to it?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from consumers.rules.times import rfc3339
from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.decisions import consents_on_topic, subject_of_change
from schemas.requests import ConsentChanged
from schemas.subjects import Consent

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A record of consents.changed and where it lies."""

    change: ConsentChanged
    partition: int
    offset: int


def consent_of(change: ConsentChanged) -> Consent:
    """The decision of a record, without its proof."""
    return Consent(
        subject_of_change(change),
        change.status,
        change.valid_from_ms,
        change.valid_to_ms,
        change.recorded_at_ms,
    )


def first_of_each(history: Iterable[Recorded]) -> list[Recorded]:
    """Every decision once, oldest first: one that was sent again has the same id, and one that is
    recorded for several pids of a person differs in nothing but whose it is."""
    found: dict[bytes, Recorded] = {}
    for each in history:
        found.setdefault(each.change.record_id, each)
    decisions: dict[ConsentChanged, Recorded] = {}
    for each in found.values():
        decisions.setdefault(replace(each.change, record_id=b"", pid=b""), each)
    return sorted(decisions.values(), key=lambda each: each.change.recorded_at_ms)


def union(*known: Iterable[Consent]) -> list[Consent]:
    """Every decision once, in the order of the arguments."""
    return list(dict.fromkeys(each for consents in known for each in consents))


def view_consents(
    subject: str,
    history: Sequence[Recorded],
    decided: Sequence[Sequence[Consent]],
    bases: Mapping[str, Basis],
    now_ms: int,
) -> Json:
    """State of every declared purpose and every subscription that was ever decided on, and every
    record with its proof. `decided` are of each pid all decisions known, whoever knows them."""
    matters = {c.subject_of for each in decided for c in each}
    topics = sorted(about for about in matters if not about.startswith("purpose/"))
    return {
        "subject": subject,
        "purposes": [
            {"purpose": name, "basis": basis}
            | _state(basis, [decisions_on(f"purpose/{name}", each) for each in decided], now_ms)
            for name, basis in sorted(bases.items())
        ],
        "subscriptions": [_subscription(about, decided, now_ms) for about in topics],
        "history": [view_record(each) for each in first_of_each(history)],
    }


def _subscription(about: str, decided: Sequence[Sequence[Consent]], now_ms: int) -> Json:
    channel, _, topic = about.partition("/")
    on_it = [consents_on_topic(channel, topic, each) for each in decided]
    return {"channel": channel, "topic": topic, **_state("consent", on_it, now_ms)}


def _state(basis: Basis, of_pids: Sequence[Sequence[Consent]], now_ms: int) -> Json:
    in_force = [
        c
        for decisions in of_pids
        for c in decisions
        if c.valid_from_ms <= now_ms and (c.valid_to_ms is None or c.valid_to_ms > now_ms)
    ]
    latest = max(in_force, key=lambda c: (c.valid_from_ms, c.recorded_at_ms), default=None)
    return {
        "allowed": allowed_now_in_all(basis, of_pids, now_ms),
        "status": latest.status if latest is not None else "unknown",
        "since": rfc3339(latest.valid_from_ms) if latest is not None else None,
        "until": _moment(latest.valid_to_ms) if latest is not None else None,
        "recorded_at": rfc3339(latest.recorded_at_ms) if latest is not None else None,
    }


def view_record(recorded: Recorded) -> Json:
    """One record, with its proof and where it lies."""
    change = recorded.change
    if change.purpose is not None:
        matter = {"purpose": change.purpose}
    else:
        matter = {"channel": change.channel or "", "topic": change.topic or ""}
    return {
        "record_id": change.record_id.hex(),
        **matter,
        "status": change.status,
        "legal_basis": change.legal_basis,
        "valid_from": rfc3339(change.valid_from_ms),
        "valid_to": _moment(change.valid_to_ms),
        "recorded_at": rfc3339(change.recorded_at_ms),
        "source": change.source,
        "proof": {
            "method": change.method,
            "text_version": change.text_version,
            "text_hash": change.text_hash.hex() if change.text_hash is not None else None,
            "language": change.language,
            "jurisdiction": change.jurisdiction,
            "age_band": change.age_band,
            "authorised_by": change.authorised_by,
            "age_of_consent": change.age_of_consent,
        },
        "log": {"partition": recorded.partition, "offset": recorded.offset},
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
