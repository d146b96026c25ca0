"""How do tests get an Apache Kafka cluster of three brokers whose faults they choose?

Three processes of the jars that the embedded stack uses, each broker and controller at once (KRaft),
on loopback. Topics have three replicas, a write is acknowledged when two have it
(`min.insync.replicas`), and a replica that lags never becomes leader. So one broker may be lost
without losing an acknowledged record; with two lost nothing is acknowledged.

A broker can be killed, stopped, paused, resumed and started again on the same ports and data. Give
other ports to those who talk to it (`advertise`) and a proxy of the test can slow it or cut it off.

Measured on two cores that others use too: ready after 11 to 20 s; 200 MB resident a broker; another
leader 5 s after one was killed or paused, 10 s where it was the active controller as well; a killed
broker takes part again after 3 to 11 s and is in sync a second later.
"""

import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata, PartitionMetadata

from runtime import apache_kafka
from runtime.processes import free_ports
from runtime.servers import ApacheKafka
from tests.waiting import eventually

BROKERS = (1, 2, 3)
HEAP_MB = 288
READY_WITHIN_S = 180.0
ANSWER_WITHIN_S = 5
SESSION_MS = 5_000
"""A broker that is silent for so long is fenced by the controller: others become leaders."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of one broker on 127.0.0.1, by who connects to them."""

    clients: int
    brokers: int
    controllers: int


class ClusterBroker(ApacheKafka):
    """One broker of a cluster; its port stays the same over kills and starts."""

    def __init__(self, cluster: "KafkaCluster", broker_id: int, *, java: Path, jars: Path) -> None:
        super().__init__(cluster.directory, java=java, jars=jars)
        self.name = f"kafka-{broker_id}"
        self.directory = cluster.directory / self.name
        self.log_file = cluster.directory / "logs" / f"{self.name}.log"
        self._pid_file = cluster.directory / "run" / f"{self.name}.pid"
        self._cluster = cluster
        self._id = broker_id
        bound = cluster.bound[broker_id]
        self.ports = (bound.clients, bound.controllers, bound.brokers)

    def prepare(self) -> None:
        """Its configuration is written and its log formatted, if it was not before."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._prepare()

    def _prepare(self) -> None:
        properties = apache_kafka.write_properties(
            self.directory, port=self.ports[0], controller_port=self.ports[1]
        )
        with properties.open("a") as file:
            # Of two lines with one name, Java takes the last.
            file.write(self._cluster.properties_of(self._id))
        apache_kafka.format_once(
            self._java,
            self._jars,
            properties,
            self.directory / "log",
            cluster_id=self._cluster.cluster_id,
        )

    def _command(self) -> list[str]:
        properties = self.directory / "server.properties"
        command = apache_kafka.broker_command(self._java, self._jars, properties, heap_mb=HEAP_MB)
        # A broker lives for a minute here: better code would cost more than it gives back.
        command.insert(1, "-XX:TieredStopAtLevel=1")
        # SIGTERM would not end a paused broker, nor one that finds no controller to say goodbye to.
        setpriv = shutil.which("setpriv")
        return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command

    def _is_ready(self) -> bool:
        """It answers, and the controller lets it take part."""
        return super()._is_ready() and self._id in metadata_of(self.address).brokers

    def signal(self, number: int) -> None:
        """Send a signal to its process, which must be running."""
        assert self.is_alive() and self.pid is not None, f"{self.name} does not run"
        os.kill(self.pid, number)


class KafkaCluster:
    """Three brokers under `directory`, started by `start` and gone after `close`.

    Broker ids are 1, 2 and 3. Call `start` and `restart` from a thread that lives as long as the
    brokers should (runtime/processes.py): best the test's own.
    """

    def __init__(self, directory: Path) -> None:
        tools = apache_kafka.look_for_tools()
        apache_kafka.require(tools)
        assert tools.java is not None
        jars = apache_kafka.provide_jars(tools, print)
        self.directory = directory
        self.cluster_id = apache_kafka.new_cluster_id()
        ports = free_ports(3 * len(BROKERS))
        self.bound = {b: Ports(*ports[3 * n : 3 * n + 3]) for n, b in enumerate(BROKERS)}
        self._advertised = dict(self.bound)
        self._paused: set[int] = set()
        self.brokers = {b: ClusterBroker(self, b, java=tools.java, jars=jars) for b in BROKERS}

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for clients: those of proxies where `advertise` named some."""
        return ",".join(f"127.0.0.1:{self._advertised[b].clients}" for b in BROKERS)

    def advertise(
        self,
        broker_id: int,
        *,
        clients: int | None = None,
        brokers: int | None = None,
        controllers: int | None = None,
    ) -> None:
        """Send those who connect to a broker to other ports, which must lead to `bound[broker_id]`.

        Before `start`. `clients` is where clients go; `brokers` where other brokers fetch what they
        replicate; `controllers` where all its peers send metadata votes and heartbeats.
        """
        given = {"clients": clients, "brokers": brokers, "controllers": controllers}
        self._advertised[broker_id] = replace(
            self._advertised[broker_id], **{name: port for name, port in given.items() if port}
        )

    def start(self) -> None:
        """All brokers take part, and the cluster takes writes. Raises StoreUnavailable."""
        try:
            self.begin()
            for broker in self.brokers.values():
                broker.wait_ready(READY_WITHIN_S)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """All brokers run; none may answer yet."""
        with ThreadPoolExecutor(len(BROKERS)) as threads:
            list(threads.map(ClusterBroker.prepare, self.brokers.values()))
        for broker in self.brokers.values():
            broker.start()

    def restart(self, *broker_ids: int, within_s: float = READY_WITHIN_S) -> None:
        """Brokers that ended run again and take part; they may still have to catch up."""
        for broker_id in broker_ids:
            assert not self.brokers[broker_id].is_alive(), f"broker {broker_id} runs"
            self.brokers[broker_id].start()
        for broker_id in broker_ids:
            self.brokers[broker_id].wait_ready(within_s)

    def kill(self, *broker_ids: int) -> None:
        """Brokers end by SIGKILL, together; they have ended afterwards."""
        for broker_id in broker_ids:
            self.brokers[broker_id].signal(signal.SIGKILL)
        for broker_id in broker_ids:
            self.brokers[broker_id].stop()
            self._paused.discard(broker_id)

    def stop(self, broker_id: int) -> None:
        """A broker hands its partitions over and ends (SIGTERM)."""
        self.brokers[broker_id].stop()

    def pause(self, broker_id: int) -> None:
        """A broker stands still (SIGSTOP), its connections open."""
        self.brokers[broker_id].signal(signal.SIGSTOP)
        self._paused.add(broker_id)

    def resume(self, broker_id: int) -> None:
        """A paused broker goes on (SIGCONT)."""
        self.brokers[broker_id].signal(signal.SIGCONT)
        self._paused.discard(broker_id)

    @contextmanager
    def paused(self, broker_id: int) -> Iterator[None]:
        """A broker stands still meanwhile."""
        self.pause(broker_id)
        try:
            yield
        finally:
            self.resume(broker_id)

    def running(self) -> list[int]:
        """Ids of the brokers whose process runs, paused or not."""
        return [b for b, broker in self.brokers.items() if broker.is_alive()]

    def pid(self, broker_id: int) -> int | None:
        """Its process id, or None if it was not started."""
        return self.brokers[broker_id].pid

    def leader_of(self, topic: str, partition: int) -> int:
        """The broker that takes the writes of a partition now; -1 if none does."""
        return int(self._partition(topic, partition).leader)

    def in_sync(self, topic: str, partition: int) -> list[int]:
        """The brokers that have everything that is acknowledged of a partition."""
        return sorted(self._partition(topic, partition).isrs)

    def wait_in_sync(self, topics: Iterable[str], *, within_s: float = 60) -> None:
        """Every partition of `topics` is on all brokers: another one may be lost."""

        def is_everywhere() -> bool:
            known = self._metadata().topics
            for topic in topics:
                assert topic in known, f"{topic} is not known yet"
                behind = [
                    p.id for p in known[topic].partitions.values() if len(p.isrs) < len(BROKERS)
                ]
                assert not behind, f"{topic}{behind} has no three replicas in sync"
            return True

        eventually(is_everywhere, within_s=within_s, every_s=0.2)

    def close(self) -> None:
        """No process is left. What they stored stays in `directory`."""
        self.kill(*self.running())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def properties_of(self, broker_id: int) -> str:
        """What a broker's configuration says otherwise than that of a broker alone."""
        ours, told = self.bound[broker_id], self._advertised[broker_id]
        at = "127.0.0.1"
        voters = ",".join(f"{b}@{at}:{self._advertised[b].controllers}" for b in BROKERS)
        return f"""\
node.id={broker_id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{at}:{ours.clients},BROKERS://{at}:{ours.brokers},CONTROLLER://{at}:{ours.controllers}
advertised.listeners=PLAINTEXT://{at}:{told.clients},BROKERS://{at}:{told.brokers}
inter.broker.listener.name=BROKERS
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
# Seconds, not tens of them, and yet more than a JVM that starts beside it can take from two cores.
broker.session.timeout.ms={SESSION_MS}
broker.heartbeat.interval.ms=1000
controller.quorum.fetch.timeout.ms=3000
controller.quorum.request.timeout.ms=3000
replica.lag.time.max.ms=10000
# A test that waits for something to be forgotten waits seconds.
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=1000
replica.fetch.backoff.ms=200
replica.socket.timeout.ms=10000
"""

    def _partition(self, topic: str, partition: int) -> PartitionMetadata:
        known = self._metadata().topics
        assert topic in known, f"{topic} is not known yet"
        return known[topic].partitions[partition]

    def _metadata(self) -> ClusterMetadata:
        """What the brokers say that can answer; AssertionError while none does."""
        able = [b for b in self.running() if b not in self._paused]
        addresses = ",".join(f"127.0.0.1:{self.bound[b].clients}" for b in able)
        return metadata_of(addresses)


def metadata_of(addresses: str) -> ClusterMetadata:
    """What one of the brokers says of the cluster. AssertionError if none answers."""
    quiet: dict[str, str | int] = {"log_level": 2, "socket.timeout.ms": ANSWER_WITHIN_S * 1000}
    try:
        return AdminClient({"bootstrap.servers": addresses, **quiet}).list_topics(
            timeout=ANSWER_WITHIN_S
        )
    except KafkaException as error:
        raise AssertionError(f"no broker answers at {addresses}: {error.args[0]}") from error
