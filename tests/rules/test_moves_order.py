"""Does any order of the same facts, told once or twice, make the same persons?

Real lanes (tests/lanes_together.py) hear calls, claims, revocations and decisions in two orders, cut
into transactions and interleaved by chance, with restarts. And the whole must be what one lane makes
of everything when it happens under one pid.
"""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.activity import packed, unpack
from schemas.identity import RANK
from schemas.moves import Claimed
from schemas.persons import groups_of, whole_subject
from schemas.requests import ConsentChanged
from schemas.subjects import PID_BYTES, Subject
from streams.rules.person import Person, person_to_subject
from tests.lanes_together import Sent, Together
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

PIDS = [bytes([at]) * PID_BYTES for at in range(1, 7)]
TYPES = ("user", "user", "email", "phone", "anonymous", "anonymous")

at_ms = st.integers(0, 12).map(lambda at: START_MS + at * GAP_MS // 3)
ids = st.binary(min_size=16, max_size=16)


@st.composite
def claims(draw: st.DrawFn) -> Claimed:
    """By one who ranks higher, by hand or not."""
    low = draw(st.integers(1, len(PIDS) - 1))
    high = draw(st.integers(0, low - 1))
    cause = draw(st.sampled_from(("identify", "identify", "alias", "linked", "revoked")))
    when = START_MS + draw(st.integers(0, 3))
    return Claimed(PIDS[low], PIDS[high], RANK[TYPES[high]], when, draw(ids), cause, START_MS)


@st.composite
def calls(draw: st.DrawFn) -> Any:
    """Views and orders; who tells of an order again says the same of it."""
    number = draw(st.none() | st.integers(0, 3))
    properties: dict[str, Any] = {"campaign_id": draw(st.sampled_from("ab"))}
    if number is not None:
        properties |= {"order_id": number, "total": number * 5, "currency": "EUR"}
        properties["campaign_id"] = "c"
    return make_event(
        event_id=draw(ids),
        pid=draw(st.sampled_from(PIDS)),
        event=ORDER if number is not None else "",
        occurred_at_ms=draw(at_ms),
        clear={"properties": properties},
    )


@st.composite
def decisions(draw: st.DrawFn) -> ConsentChanged:
    """On what does not decide whether an event counts: that is told of late by others (ADR 0018)."""
    status = draw(st.sampled_from(("granted", "withdrawn")))
    recorded_at_ms = START_MS + draw(st.integers(0, 1_000_000))
    return ConsentChanged(
        draw(ids), draw(st.sampled_from(PIDS)), "sale", None, None, "consent", status, START_MS,
        None, recorded_at_ms, "form",
    )  # fmt: skip


def _with_ids(sent: list[Any]) -> list[Any]:
    """Each an id of its own: it is made of the home pid and the message's, so no two share one."""
    return [
        each
        if isinstance(each, ConsentChanged)
        else msgspec.structs.replace(each, event_id=at.to_bytes(16, "little"))
        for at, each in enumerate(sent)
    ]


views = st.lists(calls(), min_size=1, max_size=12).map(_with_ids)
facts = st.lists(st.one_of(claims(), calls(), decisions()), min_size=1, max_size=14).map(_with_ids)


def normal(subject: Subject) -> Subject:
    """The whole person, equal for equal ones."""
    whole = whole_subject(subject)
    return msgspec.structs.replace(
        whole,
        activity=packed(sorted(set(unpack(whole.activity)))),
        purchases=sorted(whole.purchases, key=lambda each: (each.occurred_at_ms, each.tie)),
        spent=sorted(whole.spent, key=lambda each: each.currency),
        consents=sorted(whole.consents, key=msgspec.msgpack.encode),
        kin=[],
    )


def persons(subjects: dict[bytes, Subject]) -> dict[bytes, Any]:
    """What everybody may know of them. Who belonged to a pid for a moment leaves an empty record."""
    return {
        pid: (
            normal(each),
            each.moved_to,
            [member.pid for member in each.members],
            sorted(msgspec.msgpack.encode(group) for group in groups_of(each)[1:]),
        )
        for pid, each in subjects.items()
        if each != person_to_subject(Person(pid))
    }


def lanes_of(sent: list[Sent], seed: int) -> dict[bytes, Subject]:
    with pytest.MonkeyPatch.context() as patch:
        return Together(patch, seed=seed).run(*sent).subjects()


@settings(max_examples=60, deadline=None)
@given(sent=facts, again=st.sets(st.integers(0, 13)), seed=st.integers(0, 10_000))
def test_any_order_of_facts_makes_the_same_persons(
    sent: list[Sent], again: set[int], seed: int
) -> None:
    shuffled = [*sent, *(sent[at] for at in again if at < len(sent))]
    random.Random(seed).shuffle(shuffled)
    assert persons(lanes_of(sent, seed)) == persons(lanes_of(shuffled, seed + 1))


@settings(max_examples=40, deadline=None)
@given(sent=views, seed=st.integers(0, 10_000))
def test_whole_is_what_one_pid_would_have_become(sent: list[Sent], seed: int) -> None:
    linked: list[Sent] = [
        Claimed(pid, PIDS[0], 3, START_MS, bytes(16), "identify", START_MS) for pid in PIDS[1:]
    ]
    merged = normal(lanes_of([*sent, *linked], seed)[PIDS[0]])
    alone: list[Sent] = [msgspec.structs.replace(each, pid=PIDS[0]) for each in sent]
    assert merged == normal(lanes_of(alone, seed)[PIDS[0]])
