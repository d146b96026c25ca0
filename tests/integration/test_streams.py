"""Does the running worker do with records on real Kafka what the rules say?

One worker serves the whole module: each test has people of its own, and asks only for those.
"""

import random
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import msgspec
import pytest
from confluent_kafka import Producer

from schemas.codec import COLLECTED, CONSENT_CHANGED, ERASURE_REQUESTED, HEADER_BYTES
from schemas.events import Collected, Rejected
from schemas.partitioning import partition_of
from schemas.requests import ERASE, FORGET, ConsentChanged, ErasureRequested
from schemas.subjects import Subject
from tests.stream_log import ORDER, START_MS, Log, make_event, new_log, random_events
from tests.stream_worker import Worker

PARTITIONS = 2


@dataclass
class World:
    """A log and the worker on it."""

    log: Log
    worker: Worker

    def settle(self) -> None:
        """All that was sent has taken effect."""
        self.log.wait_applied(self.worker)


@pytest.fixture(scope="module")
def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log = new_log(kafka, f"streams-{uuid4().hex[:12]}", partitions=PARTITIONS)
    directory = tmp_path_factory.mktemp("streams")
    with Worker(directory, "w1", log.settings.model_dump_json()) as worker:
        yield World(log, worker.start().wait_open())


@pytest.fixture
def lane() -> int:
    """The lane of the test's people."""
    return random.randrange(PARTITIONS)


def pid_in(lane: int) -> bytes:
    """A new person of `lane`."""
    while True:
        pid = random.randbytes(16)
        if partition_of(pid, PARTITIONS) == lane:
            return pid


def accepted_ids(log: Log) -> Counter[bytes]:
    return Counter(each.event_id for each in log.accepted())


def rejections_at(log: Log, place: tuple[str, int, int]) -> list[Rejected]:
    return [each for each in log.rejected() if (each.topic, each.partition, each.offset) == place]


def subject_of(log: Log, pid: bytes) -> Subject:
    return log.subjects()[pid]


HEADER = COLLECTED.header
Spoil = Callable[[Collected], tuple[bytes | None, bytes | None]]


def _valid(base: Collected, /, **changes: object) -> tuple[bytes, bytes]:
    changed = msgspec.structs.replace(base, **changes)
    return COLLECTED.encode(changed), changed.pid


def _order(event: Collected, properties: bytes) -> tuple[bytes, bytes]:
    return _valid(event, type="track", event=ORDER, clear=b'{"properties":' + properties + b"}")


BAD: dict[str, tuple[str, str, Spoil]] = {
    "null value": ("null_value", "$", lambda e: (None, e.pid)),
    "empty value": ("wrong_magic_byte", "$", lambda e: (b"", e.pid)),
    "JSON": ("wrong_magic_byte", "$", lambda e: (b'{"type":"page"}', e.pid)),
    "wrong magic byte": ("wrong_magic_byte", "$", lambda e: (b"\x01" + _valid(e)[0][1:], e.pid)),
    "unknown schema id": (
        "unknown_schema_id",
        "$",
        lambda e: (struct.pack(">bI", 0, 4711) + _valid(e)[0][HEADER_BYTES:], e.pid),
    ),
    "another record's schema id": (
        "unknown_schema_id",
        "$",
        lambda e: (ERASURE_REQUESTED.header + _valid(e)[0][HEADER_BYTES:], e.pid),
    ),
    "header alone": ("broken_avro", "$", lambda e: (HEADER, e.pid)),
    "truncated Avro": ("broken_avro", "$", lambda e: (_valid(e)[0][:-3], e.pid)),
    "trailing bytes": ("broken_avro", "$", lambda e: (_valid(e)[0] + b"\x00", e.pid)),
    "noise": ("broken_avro", "$", lambda e: (HEADER + b"\xff" * 200, e.pid)),
    "text that is not UTF-8": (
        "broken_avro",
        "$",
        lambda e: (_valid(e)[0].replace(b"\x08shop", b"\x08sh\xff\xff"), e.pid),
    ),
    "wrong key": ("wrong_key", "$", lambda e: (_valid(e)[0], b"k" * 16)),
    "null key": ("wrong_key", "$", lambda e: (_valid(e)[0], None)),
    "unknown type": ("unknown_type", "$.type", lambda e: _valid(e, type="purchase")),
    "time before 1970": (
        "time_out_of_range",
        "$.occurred_at_ms",
        lambda e: _valid(e, occurred_at_ms=-1),
    ),
    "time after 2099": (
        "time_out_of_range",
        "$.occurred_at_ms",
        lambda e: _valid(e, occurred_at_ms=2**62),
    ),
    "clear is no JSON": ("wrong_clear_json", "$.clear", lambda e: _valid(e, clear=b"{")),
    "clear is a list": ("wrong_clear_json", "$.clear", lambda e: _valid(e, clear=b"[]")),
    "clear nests without end": (
        "wrong_clear_json",
        "$.clear",
        lambda e: _valid(e, clear=b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    ),
    "lone surrogate": (
        "wrong_clear_json",
        "$.clear",
        lambda e: _valid(e, clear=b'{"properties":{"campaign_id":"\\ud800"}}'),
    ),
    "money is NaN": ("wrong_clear_json", "$.clear", lambda e: _order(e, b'{"total":NaN}')),
    "money is text": (
        "wrong_money",
        "$.properties.total",
        lambda e: _order(e, b'{"total":"a lot","currency":"EUR"}'),
    ),
    "money is negative": (
        "wrong_money",
        "$.properties.revenue",
        lambda e: _order(e, b'{"revenue":-1,"currency":"EUR"}'),
    ),
    "money without currency": (
        "wrong_currency",
        "$.properties.currency",
        lambda e: _order(e, b'{"value":1}'),
    ),
    "currency that is no code": (
        "wrong_currency",
        "$.properties.currency",
        lambda e: _order(e, '{"value":1,"currency":"ßßß"}'.encode()),
    ),
    "source of a megabyte": (
        "unknown_type",
        "$.type",
        lambda e: _valid(e, type="", source="s" * 1_048_000),
    ),
    "campaign of 513 characters": (
        "campaign_too_long",
        "$.campaign",
        lambda e: _valid(e, clear=b'{"properties":{"campaign_id":"' + b"c" * 513 + b'"}}'),
    ),
}


def test_each_bad_record_is_set_aside_once_and_its_neighbours_count(
    world: World, lane: int
) -> None:
    """Every kind of bad record lies between two good ones of the same person and lane."""
    log, topic = world.log, world.log.topics.collected
    good: list[Collected] = []
    places: dict[str, tuple[str, int, int]] = {}
    pid = pid_in(lane)

    def send_good() -> None:
        good.append(make_event(pid=pid, occurred_at_ms=START_MS + len(good)))
        log.send_raw(topic, COLLECTED.encode(good[-1]), pid, lane)

    send_good()
    for name, (_, _, spoil) in BAD.items():
        value, key = spoil(make_event(pid=pid))
        places[name] = log.send_raw(topic, value, key, lane)
        send_good()
    other = make_event(pid=pid_in(1 - lane))
    places["wrong partition"] = log.send_raw(topic, COLLECTED.encode(other), other.pid, lane)
    send_good()
    world.settle()

    found = {name: rejections_at(log, place) for name, place in places.items()}
    expected = {name: [(path, reason)] for name, (reason, path, _) in BAD.items()}
    expected["wrong partition"] = [("$", "wrong_partition")]
    assert {
        name: [(each.path, each.reason) for each in each_found]
        for name, each_found in found.items()
    } == expected
    assert all(each.stage == "streams" and each.lane == lane for [each] in found.values())
    counts = accepted_ids(log)
    assert [counts[event.event_id] for event in good] == [1] * len(good)
    assert subject_of(log, pid).events == len(good)
    assert other.pid not in log.subjects()


@pytest.mark.parametrize("size", [1_000_000, 1_048_490])
def test_event_of_a_megabyte_counts(world: World, lane: int, size: int) -> None:
    """Up to the most that the input takes: what the lane adds must fit the output's limit."""
    event = make_event(pid=pid_in(lane), sealed=b"")
    event = msgspec.structs.replace(event, sealed=bytes(size - len(COLLECTED.encode(event))))
    world.log.send([event, make_event(pid=event.pid)])
    world.settle()
    assert accepted_ids(world.log)[event.event_id] == 1
    assert subject_of(world.log, event.pid).events == 2


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_events_count_however_their_producer_compressed_them(
    world: World, lane: int, codec: str
) -> None:
    """A batch that the worker cannot unpack would stop its lane for good."""
    log, pid = world.log, pid_in(lane)
    producer = Producer(
        {
            "bootstrap.servers": log.kafka.bootstrap_servers,
            "compression.type": codec,
            "linger.ms": 100,
        }
    )
    events = [make_event(pid=pid, sealed=b"the same again" * 20) for _ in range(20)]
    for event in events:
        producer.produce(log.topics.collected, COLLECTED.encode(event), pid, lane)
    assert producer.flush(30) == 0
    world.settle()
    assert subject_of(log, pid).events == len(events)


def test_odd_but_valid_values_travel_unchanged(world: World, lane: int) -> None:
    """Null bytes, emoji, right-to-left text, a thousand properties, depth 50."""
    names = ["\x00", "🛒🎉", "חנות", "a" * 512, "'; DROP TABLE facts; --"]
    deep: object = "end"
    for _ in range(50):
        deep = [deep]
    pid = pid_in(lane)
    properties: dict[str, object] = {f"p{n}": n for n in range(1_000)} | {"deep": deep}
    events = [
        make_event(
            pid=pid,
            event=name,
            source=name,
            clear={"properties": {**properties, "campaign_id": name}},
        )
        for name in names
    ]
    world.log.send(events)
    world.settle()
    found = {each.event_id: each for each in world.log.accepted() if each.pid == pid}
    assert [found[event.event_id].campaign_id for event in events] == names
    for event in events:
        each = found[event.event_id]
        shared = Collected(*(getattr(each, name) for name in Collected.__struct_fields__))
        assert shared == event


def test_resent_event_counts_once_and_another_body_under_its_id_is_refused(
    world: World, lane: int
) -> None:
    event = make_event(pid=pid_in(lane))
    world.log.send([event, event])
    world.settle()
    world.log.send([event])
    body = COLLECTED.encode(msgspec.structs.replace(event, body_digest=8))
    place = world.log.send_raw(world.log.topics.collected, body, event.pid, lane)
    world.settle()
    assert accepted_ids(world.log)[event.event_id] == 1
    assert [each.reason for each in rejections_at(world.log, place)] == ["message_id_reused"]


def test_restart_goes_on_where_it_was_and_remembers_what_it_saw(world: World) -> None:
    log, worker = world.log, world.worker
    first = random_events(random.Random(11), 400, 20)
    second = random_events(random.Random(12), 400, 20)
    log.send(first)
    world.settle()
    before = len(log.accepted())
    assert worker.end(signal.SIGTERM) == 0
    log.send(first[:200] + second)
    worker.start().wait_open()
    world.settle()
    assert len(log.accepted()) == before + len(second)
    counts = accepted_ids(log)
    assert {counts[event.event_id] for event in first + second} == {1}
    seqs = [[cursor.seq for cursor in cursors] for cursors in log.cursors().values()]
    assert all(found == list(range(1, len(found) + 1)) for found in seqs)


def _erasure(pid: bytes, at_ms: int = START_MS, phase: str = ERASE) -> bytes:
    return ERASURE_REQUESTED.encode(
        ErasureRequested(random.randbytes(16), pid, at_ms, "withdrawn", [], phase)
    )


def test_erased_person_is_a_stub_and_later_events_leave_only_a_count(
    world: World, lane: int
) -> None:
    log = world.log
    erased, stays = pid_in(lane), pid_in(lane)
    never_seen = pid_in(lane)
    log.send([make_event(pid=erased), make_event(pid=stays)])
    world.settle()
    before = log.withheld()["erased"]
    log.send_raw(log.topics.erasures, _erasure(erased), erased, lane)
    log.send_raw(log.topics.erasures, _erasure(erased, START_MS + 9), erased, lane)
    log.send_raw(log.topics.erasures, _erasure(never_seen), never_seen, lane)
    world.settle()
    late = [make_event(pid=pid) for pid in (erased, erased, never_seen, stays)]
    log.send(late)
    world.settle()

    for pid in (erased, never_seen):
        empty = Subject(pid, START_MS, 0, 0, 0, 0, 0, [], [], [], [], [], b"", [], b"")
        assert subject_of(log, pid) == empty
    assert subject_of(log, stays).events == 2
    assert log.withheld()["erased"] == before + 3
    counts = accepted_ids(log)
    assert [counts[event.event_id] for event in late] == [0, 0, 0, 1]
    told = [each for each in log.erased() if each.pid in (erased, never_seen)]
    assert sorted(each.pid for each in told) == sorted((erased, never_seen))  # once each
    assert {each.erased_at_ms for each in told} == {START_MS}

    # Nobody is forgotten who was not erased; and asking twice is asking once.
    for pid in (erased, stays, erased):
        log.send_raw(log.topics.erasures, _erasure(pid, phase=FORGET), pid, lane)
    world.settle()
    newest = {key: value for _, key, value in log.read(log.topics.subjects)}
    assert newest[erased] is None
    assert newest[stays] is not None and newest[never_seen] is not None
    assert len([each for each in log.erased() if each.pid == erased]) == 1


def test_erasure_and_its_count_outlive_a_restart(world: World, lane: int) -> None:
    log, pid = world.log, pid_in(lane)
    log.send_raw(log.topics.erasures, _erasure(pid), pid, lane)
    world.settle()
    before = log.withheld()["erased"]
    assert world.worker.end(signal.SIGTERM) == 0
    event = make_event(pid=pid)
    log.send([event])
    world.worker.start().wait_open()
    world.settle()
    assert accepted_ids(log)[event.event_id] == 0
    assert log.withheld()["erased"] == before + 1
    assert subject_of(log, pid).erased_at_ms == START_MS


def _consent(pid: bytes, status: str, at_ms: int, **changes: object) -> bytes:
    fields = {
        "purpose": "analytics",
        "channel": None,
        "topic": None,
        "valid_to_ms": None,
        **changes,
    }
    return CONSENT_CHANGED.encode(
        ConsentChanged(
            record_id=random.randbytes(16),
            pid=pid,
            legal_basis="consent",
            status=status,
            valid_from_ms=at_ms,
            recorded_at_ms=at_ms,
            source="form",
            **fields,  # type: ignore[arg-type]
        )
    )


def test_consents_are_kept_in_the_order_of_their_recording(world: World, lane: int) -> None:
    log, pid = world.log, pid_in(lane)
    topic = log.topics.consents
    withdrawn = _consent(pid, "withdrawn", START_MS + 2)
    for value in (
        withdrawn,
        _consent(pid, "granted", START_MS + 1),
        withdrawn,
        _consent(pid, "subscribed", START_MS + 3, purpose=None, channel="email", topic="news"),
    ):
        log.send_raw(topic, value, pid, lane)
    world.settle()
    assert [(each.subject_of, each.status) for each in subject_of(log, pid).consents] == [
        ("purpose/analytics", "granted"),
        ("purpose/analytics", "withdrawn"),
        ("email/news", "subscribed"),
    ]


def test_a_childs_own_yes_on_the_log_is_no_decision(world: World, lane: int) -> None:
    log, pid = world.log, pid_in(lane)
    for number, (status, by) in enumerate(
        (("granted", "self"), ("granted", "guardian"), ("withdrawn", "self"), ("granted", None))
    ):
        value = _consent(pid, status, START_MS + number, age_band="13-15", authorised_by=by)
        log.send_raw(log.topics.consents, value, pid, lane)
    world.settle()
    assert [(each.status, each.recorded_at_ms) for each in subject_of(log, pid).consents] == [
        ("granted", START_MS + 1),
        ("withdrawn", START_MS + 2),
    ]


def test_withdrawal_on_the_log_is_known_to_every_event_sent_after_it(
    world: World, lane: int
) -> None:
    """However many decisions of others lie before it, and however soon the events come."""
    log, pid, other = world.log, pid_in(lane), pid_in(lane)
    topic, before = log.topics.consents, log.withheld()["analytics"]
    for number in range(300):
        log.send_raw(topic, _consent(other, "granted", START_MS - number), other, lane)
    log.send_raw(topic, _consent(pid, "withdrawn", START_MS), pid, lane)
    events = [make_event(pid=each) for each in (pid, other) for _ in range(50)]
    log.send(events)
    world.settle()
    counts = accepted_ids(log)
    assert [counts[event.event_id] for event in events] == [0] * 50 + [1] * 50
    assert log.withheld()["analytics"] == before + 50
    assert not [each for each in log.retracted() if each.pid == pid]


def test_late_withdrawal_is_told_to_those_who_counted(world: World, lane: int) -> None:
    log, pid = world.log, pid_in(lane)
    log.send([make_event(pid=pid)])
    log.send_raw(log.topics.consents, _consent(pid, "granted", START_MS - 9), pid, lane)
    world.settle()
    place = log.send_raw(log.topics.consents, _consent(pid, "withdrawn", START_MS - 5), pid, lane)
    log.send_raw(log.topics.consents, _consent(pid, "withdrawn", START_MS + 10**12), pid, lane)
    world.settle()
    [told] = [each for each in log.retracted() if each.pid == pid]
    assert [each.status for each in told.decisions] == ["granted", "withdrawn"]
    assert (told.basis, told.lane) == ("legitimate_interest", lane)
    assert (told.source_topic, told.source_partition, told.source_offset) == place


@pytest.mark.parametrize("kind", ["consents", "erasures"])
def test_bad_consents_and_erasures_are_set_aside(world: World, lane: int, kind: str) -> None:
    log, pid, other = world.log, pid_in(lane), pid_in(1 - lane)
    topic = getattr(log.topics, kind)

    def make(pid: bytes) -> bytes:
        return _erasure(pid) if kind == "erasures" else _consent(pid, "granted", START_MS)

    bad = {
        "null_value": log.send_raw(topic, None, pid, lane),
        "wrong_key": log.send_raw(topic, make(pid), b"k" * 16, lane),
        "wrong_partition": log.send_raw(topic, make(other), other, lane),
        "broken_avro": log.send_raw(topic, make(pid)[:-1], pid, lane),
        "unknown_schema_id": log.send_raw(topic, COLLECTED.encode(make_event(pid=pid)), pid, lane),
    }
    log.send_raw(topic, make(pid), pid, lane)
    world.settle()
    found = {
        reason: [each.reason for each in rejections_at(log, place)] for reason, place in bad.items()
    }
    assert found == {reason: [reason] for reason in bad}
    assert pid in log.subjects()
    assert other not in log.subjects()


def test_nothing_is_accepted_or_set_aside_twice(world: World) -> None:
    """Over all that this module has sent; the worker never ended but where it was asked to."""
    log = world.log
    events = random_events(random.Random(13), 600, 30)
    log.send(events + events[::3])
    world.settle()
    counts = accepted_ids(log)
    assert {counts[event.event_id] for event in events} == {1}
    assert set(counts.values()) == {1}
    places = [(each.topic, each.partition, each.offset) for each in log.rejected()]
    assert len(places) == len(set(places))
    assert world.worker.exit_code() is None
    assert world.worker.times_open() == 1


@pytest.mark.apache
def test_aborted_input_is_never_seen_and_does_not_break_the_chain(world: World, lane: int) -> None:
    """Control records and aborted ones take offsets, also the last ones of the log. (noida-db hides
    committed records behind aborted ones: no producer of ours writes inputs in transactions.)
    """
    log, topic, pid = world.log, world.log.topics.collected, pid_in(lane)
    producer = Producer(
        {
            "bootstrap.servers": log.kafka.bootstrap_servers,
            "transactional.id": f"{log.topics.prefix}inputs",
        }
    )
    producer.init_transactions(30)
    events = [make_event(pid=pid) for _ in range(12)]
    for at, event in enumerate(events):
        producer.begin_transaction()
        producer.produce(topic, COLLECTED.encode(event), pid, lane)
        producer.flush(30)
        if at % 3 == 1:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
        if at == 5:
            world.settle()
    world.settle()
    counts = accepted_ids(log)
    assert [counts[event.event_id] for event in events] == [0, 1, 0] * 4
    assert subject_of(log, pid).events == 4
