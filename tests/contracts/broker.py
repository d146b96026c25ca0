"""What do all tests of the contract do with a broker, and how do they say where noida-db differs?

A test states what Apache Kafka shows. Where noida-db shows something else, the test states that
too (`trial=`), and docs/trial-mode.md says what the product does about it. The day noida-db behaves,
the test fails and says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.waiting import eventually

Isolation = Literal["read_committed", "read_uncommitted"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader got of a partition until its end: (offset, value), and where it then stood."""

    records: list[tuple[int, bytes | None]]
    position: int


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker under contract, or several of one cluster."""

    servers: str
    kind: str
    replication: int

    def shows(self, found: object, expected: object, *, trial: object = None) -> None:
        """Fail unless `found` is what Kafka shows, or in trial mode the known difference."""
        if trial is None or self.kind != "trial":
            assert found == expected
            return
        assert found != expected, (
            "noida-db now does what Kafka does: remove the difference here and in "
            "docs/trial-mode.md, and the work-around in the product"
        )
        assert found == trial

    def admin(self) -> AdminClient:
        """An admin client. Keep it until it has answered: its answers end with it."""
        return AdminClient({"bootstrap.servers": self.servers})

    def wait_known(self, *topics: str) -> None:
        """Each broker knows these topics, and who leads them: a moment after they are made."""
        for server in self.servers.split(","):
            admin = AdminClient({"bootstrap.servers": server, "log_level": 2})

            def is_known(admin: AdminClient = admin) -> bool:
                known = admin.list_topics(timeout=30).topics
                return all(
                    name in known and all(p.leader >= 0 for p in known[name].partitions.values())
                    for name in topics
                )

            eventually(is_known)

    def producer(self, **settings: Any) -> Producer:
        """A producer whose every record is acknowledged by all replicas."""
        common = {"bootstrap.servers": self.servers, "acks": "all", "log_level": 1}
        return Producer({**common, **_dotted(settings)})

    def transactional(self, name: str, **settings: Any) -> Producer:
        """A transactional producer that has fenced its forerunner."""
        producer = self.producer(transactional_id=name, **settings)
        producer.init_transactions(30)
        return producer

    @contextmanager
    def consumer(self, **settings: Any) -> Iterator[Consumer]:
        """A consumer that commits nothing by itself and reports ends and lost offsets."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": "contract",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                **_dotted(settings),
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def put(self, topic: str, *values: bytes | None, key: bytes | None = None) -> None:
        """Records of a plain producer; they are on the log afterwards."""
        errors: list[KafkaError | None] = []
        producer = self.producer()
        for value in values:
            producer.produce(
                topic, value, key, 0, on_delivery=lambda error, _: errors.append(error)
            )
        assert producer.flush(30) == 0
        assert errors == [None] * len(values)

    def ends(self, topic: str, isolation: Isolation = "read_uncommitted") -> tuple[int, int]:
        """(first offset, end) of partition 0, as readers of this isolation are told."""
        with self.consumer(isolation_level=isolation) as consumer:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), 30)
            return first, end

    def read(self, topic: str, offset: int = 0, isolation: Isolation = "read_committed") -> Seen:
        """Everything of partition 0 from `offset` until the broker says that it ends."""
        records: list[tuple[int, bytes | None]] = []
        with self.consumer(isolation_level=isolation) as consumer:
            consumer.assign([TopicPartition(topic, 0, offset)])

            def is_read() -> bool:
                for message in consumer.consume(1000, 0.2):
                    error = message.error()
                    if error is None:
                        records.append((message.offset(), message.value()))
                    else:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        return True
                return False

            eventually(is_read, every_s=0)
            [place] = consumer.position([TopicPartition(topic, 0)])
            return Seen(records, place.offset)


def _dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in settings.items()}
