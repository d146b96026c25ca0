"""Do totals equal the truth after workers were killed, stopped, paused and replaced in mid-work?

Every test sends while it hurts the workers, and then counts what was sent with a few lines of its
own (tests/stream_log.py): each event accepted exactly once, people equal to the truth, `seq`
without a gap. The seed of what happens when stands in the test's id: the same seed hurts the same
workers in the same order.
"""

import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.events import Collected
from tests.conftest import FreshName
from tests.stream_log import Log, assert_exact, make_event, new_log, random_events
from tests.stream_worker import Worker
from tests.waiting import eventually

PEOPLE = 300
EVENTS_A_STEP = 40
REPEATED = 0.05

MakeLog = Callable[..., Log]


@pytest.fixture
def make_log(kafka: str, fresh_name: FreshName) -> MakeLog:
    return lambda **settings: new_log(kafka, fresh_name("faults"), **settings)


class Traffic:
    """Events that are sent, some of them twice, while a test does something else."""

    def __init__(self, log: Log, seed: int, count: int, *, rate_per_s: float) -> None:
        self.chance = random.Random(seed)
        self.events: list[Collected] = random_events(self.chance, count, PEOPLE)
        self.sent = 0
        self._log = log
        self._rate_per_s = rate_per_s
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        chance = random.Random(len(self.events))
        while self.sent < len(self.events):
            step = self.events[self.sent : self.sent + EVENTS_A_STEP]
            again = [
                self.events[chance.randrange(self.sent + len(step))]
                for _ in step
                if chance.random() < REPEATED
            ]
            self._log.send(step + again)
            self.sent += len(step)
            self._hurry.wait(EVENTS_A_STEP / self._rate_per_s)

    def wait_sent(self, count: int) -> None:
        """So many of the events, or all, are on the log."""
        eventually(lambda: self.sent >= min(count, len(self.events)), within_s=60, every_s=0.01)

    def finish(self) -> None:
        """Send what is left at once."""
        self._hurry.set()
        self._thread.join()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.finish()


@pytest.mark.parametrize(
    ("number", "times", "seed"),
    [
        (signal.SIGTERM, 2, 1),
        pytest.param(signal.SIGKILL, 4, 2, marks=pytest.mark.apache),
    ],
)
def test_events_count_once_when_a_worker_ends_again_and_again(
    make_log: MakeLog, tmp_path: Path, number: signal.Signals, times: int, seed: int
) -> None:
    """In trial mode by SIGTERM only: noida-db forgets fencing, and lists aborted transactions to
    readers in mid-log, so it promises exactness over clean stops alone (docs/trial-mode.md).
    """
    log = make_log()
    traffic = Traffic(log, seed, 1_500 * times, rate_per_s=500)
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker, traffic.flowing():
        for _ in range(times):
            worker.start()
            # At any moment of its life: joining, rebuilding, applying, committing.
            traffic.wait_sent(traffic.sent + traffic.chance.randrange(600, 1_800))
            code = worker.end(number)
            # Before its imports are done a worker has no handler, and nothing to finish.
            is_clean = number == signal.SIGTERM and worker.times_open()
            assert code in ((0,) if is_clean else (0, -number)), worker.said()
        worker.start().wait_open()
        traffic.finish()
        log.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
    assert_exact(log, traffic.events)


@pytest.mark.apache
def test_events_count_once_while_workers_join_leave_die_and_sleep(
    make_log: MakeLog, tmp_path: Path
) -> None:
    """Two members of one group, each under a name of its own (KIP-345)."""
    log = make_log(partitions=4)
    first, second = (
        Worker(
            tmp_path,
            name,
            log.settings.model_copy(
                update={"kafka": log.kafka.model_copy(update={"instance_id": name})}
            ).model_dump_json(),
        )
        for name in ("w1", "w2")
    )
    traffic = Traffic(log, 4, 6_000, rate_per_s=300)
    with first, second, traffic.flowing():
        first.start().wait_open()
        traffic.wait_sent(600)
        log.wait_applied(first)  # a lane has its thread from its first commit on
        threads_of_four_lanes = first.threads()
        second.start().wait_open()
        traffic.wait_sent(1_200)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        first.start().wait_open()
        opened = first.times_open()
        # Asleep for longer than its session: the other takes its lanes, and it wakes as a zombie.
        second.send_signal(signal.SIGSTOP)
        try:
            first.wait_open(opened + 1)
        finally:
            second.send_signal(signal.SIGCONT)
        traffic.finish()
        if second.exit_code() is None:
            second.end(signal.SIGTERM)
        log.wait_applied(first)
        # It had two lanes, gave them up, and took four: nothing of the two is left.
        assert first.threads() <= threads_of_four_lanes + 3
        assert first.end(signal.SIGTERM) == 0
    assert second.exit_code() in (0, 70), second.said()
    assert_exact(log, traffic.events)


@pytest.mark.apache
def test_of_two_owners_of_a_lane_the_older_is_fenced(make_log: MakeLog, tmp_path: Path) -> None:
    """Asleep, replaced under its own name, and woken: one of the two lives on, never both."""
    log = make_log(barrier_ms=1_000)
    zombie = Worker(tmp_path, "zombie", log.settings.model_dump_json())
    owner = Worker(tmp_path, "owner", log.settings.model_dump_json())
    events = random_events(random.Random(5), 2_000, 50)
    with zombie, owner:
        zombie.start().wait_open()
        log.send(events[:500])
        log.wait_applied(zombie)
        log.send(events[500:1_000])
        zombie.send_signal(signal.SIGSTOP)
        owner.start().wait_open()
        log.wait_applied(owner)
        zombie.send_signal(signal.SIGCONT)
        log.send(events[1_000:])

        def ended() -> Worker | None:
            return next((each for each in (zombie, owner) if each.exit_code() is not None), None)

        # The zombie's commit is refused. Unless it slept with nothing to commit: then it learns from
        # the group that it was replaced, comes back as the newer owner, and the other is refused.
        refused = eventually(ended)
        assert refused is not None
        assert refused.exit_code() == 70
        # On a slow machine it slept for longer than its transaction may take: told that first.
        assert any(why in refused.said() for why in ("_FENCED", "_MSG_TIMED_OUT"))
        left = owner if refused is zombie else zombie
        log.wait_applied(left)
        assert left.end(signal.SIGTERM) == 0
    assert_exact(log, events)


def test_lane_begins_at_its_cursor_whatever_the_group_says(
    make_log: MakeLog, tmp_path: Path
) -> None:
    log = make_log(partitions=1, instance_id="")
    events = random_events(random.Random(8), 400, 20)
    log.send(events[:300])
    with Worker(tmp_path, "before", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
    _rewind(log)
    log.send(events[300:])
    with Worker(tmp_path, "after", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
    assert_exact(log, events)


def _rewind(log: Log) -> None:
    """The group's offsets say that nothing was read yet."""
    group, topic = f"{log.topics.prefix}headwater.streams", log.topics.collected
    other = Consumer(
        {
            "bootstrap.servers": log.kafka.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
        }
    )

    def is_rewound() -> bool:
        # Refused while the group still has a member.
        other.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
        return True

    eventually(is_rewound, within_s=30)
    other.close()


def test_log_that_lost_what_the_cursor_stands_on_stops_the_worker(
    make_log: MakeLog, tmp_path: Path
) -> None:
    """Until the operator says so: a higher generation begins anew at the log's start, and what it
    writes carries the new generation.
    """
    log = make_log()
    before, after = (random_events(random.Random(seed), 300, 20) for seed in (6, 7))
    log.send(before)
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
        log = _lose(log)
        log.send(after[:10])
        worker.start()
        assert worker.wait_end() == 70
        assert "the log was cut or lost" in worker.said()
        assert "raise [kafka] generation to 2" in worker.said()

    risen = log.kafka.model_copy(update={"generation": 2})
    again = Log(log.settings.model_copy(update={"kafka": risen}))
    again.send(after[10:])
    with Worker(tmp_path, "w2", again.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        again.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
    assert_exact(again, before + after)
    generations = {each.event_id: each.generation for each in again.accepted()}
    assert {generations[event.event_id] for event in before} == {1}
    assert {generations[event.event_id] for event in after} == {2}

    with Worker(tmp_path, "w3", log.settings.model_dump_json()) as worker:
        worker.start()
        assert worker.wait_end() == 70
        assert "stands in generation 2" in worker.said()


def _lose(log: Log) -> Log:
    """The topic of collected events is there anew, and empty."""
    admin = AdminClient({"bootstrap.servers": log.kafka.bootstrap_servers})
    topic = log.topics.collected
    for deleted in admin.delete_topics([topic]).values():
        deleted.result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    again = Log(log.settings)
    eventually(lambda: topic in admin.list_topics(timeout=10).topics)
    return again


SPOIL = """
import streams.app
apply_collected = streams.app.apply_collected
def fail_after(lane, records):
    apply_collected(lane, records)
    if any(record.key == b"s" * 16 for record in records):
        raise RuntimeError("ada@example.org")
streams.app.apply_collected = fail_after
"""


def test_bug_in_a_rule_ends_the_process_and_nothing_of_its_batch_is_seen(
    make_log: MakeLog, tmp_path: Path
) -> None:
    """Faust would acknowledge the batch and go on. What the error says may be personal: unsaid."""
    log = make_log(partitions=1, barrier_ms=50)
    before, spoilt = make_event(), [make_event(pid=b"r" * 16), make_event(pid=b"s" * 16)]
    log.send([before])
    with Worker(tmp_path, "w1", log.settings.model_dump_json(), SPOIL) as worker:
        worker.start().wait_open()
        log.wait_applied(worker)
        log.send(spoilt)
        assert worker.wait_end() == 70
        assert "a lane failed" in worker.said()
        assert "ada@example.org" not in worker.said()
    assert [each.event_id for each in log.accepted()] == [before.event_id]
    assert log.subjects().keys() == {before.pid}
    with Worker(tmp_path, "w2", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.wait_applied(worker)
        assert worker.end(signal.SIGTERM) == 0
    assert_exact(log, [before, *spoilt])


def test_partition_count_that_the_settings_do_not_name_stops_the_worker(
    make_log: MakeLog, tmp_path: Path
) -> None:
    log = make_log(partitions=2)
    log.send([make_event()])
    wrong = log.kafka.model_copy(update={"partitions": 3})
    settings = log.settings.model_copy(update={"kafka": wrong})
    with Worker(tmp_path, "w1", settings.model_dump_json()) as worker:
        worker.start()
        assert worker.wait_end() == 70
        assert "has 2 partitions, [kafka] partitions says 3; set it to 2" in worker.said()
    assert log.rejected() == []
