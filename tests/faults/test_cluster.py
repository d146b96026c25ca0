"""Does a cluster of three brokers keep what it acknowledged, and refuse what it could not keep?

This is what everything above rests on: a lane's transaction and a collector's 200 are worth what
the broker's acknowledgement is worth. The writer counts what was acknowledged by itself.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from runtime.log_ends import log_ends
from runtime.processes import is_running
from tests.kafka_cluster import BROKERS, KafkaCluster
from tests.waiting import eventually

pytestmark = pytest.mark.apache

TOPIC = "written"
GOES_ON = 200
"""So many acknowledged after a fault: more than were on their way when it came."""


class Writer:
    """Writes 0, 1, 2 ... to one partition, ever on, and remembers what was acknowledged."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.acknowledged: list[int] = []
        self.failed: list[str] = []
        self.written = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": 300_000,
                "socket.timeout.ms": 5_000,
                "linger.ms": 1,
                "log_level": 2,
            }
        )
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """It writes meanwhile, and everything is acknowledged or has failed afterwards."""
        self._thread.start()
        try:
            yield
        finally:
            self._ends.set()
            self._thread.join()

    def goes_on(self) -> None:
        """Fail unless records are acknowledged again before long."""
        until = len(self.acknowledged) + GOES_ON
        eventually(lambda: len(self.acknowledged) >= until or self.failed, within_s=60)

    def _write(self) -> None:
        while not self._ends.wait(0.002):
            self._producer.produce(
                TOPIC, b"%d" % self.written, partition=0, on_delivery=self._delivered
            )
            self.written += 1
            self._producer.poll(0)
        assert self._producer.flush(90) == 0

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.append(int(message.value()))
        else:
            self.failed.append(error.name())


def refusals(bootstrap_servers: str, count: int) -> list[str]:
    """What becomes of records that are given up after some seconds; empty if all were taken."""
    found: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "message.timeout.ms": 3_000,
            "log_level": 2,
        }
    )
    for _ in range(count):
        producer.produce(
            TOPIC,
            b"refused",
            partition=1,
            on_delivery=lambda error, _: found.append(error.name()) if error else None,
        )
    assert producer.flush(60) == 0
    return found


def values_of(bootstrap_servers: str) -> list[int]:
    """Everything on the log, in its order."""
    [end] = [ends[1] for ends in log_ends(bootstrap_servers, TOPIC, 1).values()]
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "test"})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    values: list[int] = []

    def is_read() -> bool:
        for message in consumer.consume(10_000, 0.2):
            assert message.error() is None, message.error()
            values.append(int(message.value()))
        return len(values) >= end

    try:
        eventually(is_read, within_s=60, every_s=0)
    finally:
        consumer.close()
    return values


def test_acknowledged_records_survive_one_lost_broker_and_none_is_acknowledged_with_two_lost(
    tmp_path: Path,
) -> None:
    with KafkaCluster(tmp_path) as cluster:
        servers = cluster.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers})
        for made in admin.create_topics([NewTopic(TOPIC, 2, 3)]).values():
            made.result(30)
        cluster.wait_in_sync([TOPIC])
        writer = Writer(servers)
        with writer.writing():
            writer.goes_on()
            first = cluster.leader_of(TOPIC, 0)
            cluster.kill(first)
            writer.goes_on()
            second = eventually(partial(cluster.leader_of, TOPIC, 0))
            assert second in BROKERS and second != first
            cluster.kill(second)
            # Acknowledgements that were on their way have come when the first refusal does.
            assert len(refusals(servers, 20)) == 20
            acknowledged = len(writer.acknowledged)
            assert len(refusals(servers, 20)) == 20
            assert acknowledged == len(writer.acknowledged) < writer.written
            cluster.restart(first)
            writer.goes_on()
        assert (writer.failed, writer.acknowledged) == ([], list(range(writer.written)))
        assert values_of(servers) == list(range(writer.written))


DIES = """
import os, signal, sys
from pathlib import Path
from tests.kafka_cluster import BROKERS, KafkaCluster
from tests.waiting import eventually

cluster = KafkaCluster(Path(sys.argv[1]))
cluster.begin()
comm = Path(f"/proc/{cluster.pid(2)}/comm")
eventually(lambda: comm.read_text() == "java\\n")
cluster.pause(2)
print(*(cluster.pid(broker) for broker in BROKERS), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_broker_outlives_a_test_that_was_killed(tmp_path: Path, checkout: Path) -> None:
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path)], capture_output=True, text=True, cwd=checkout
    )
    pids = [int(pid) for pid in died.stdout.split()]
    assert len(pids) == len(BROKERS), died.stderr
    eventually(lambda: not any(map(is_running, pids)), within_s=30)
