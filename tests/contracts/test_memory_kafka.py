"""Does the Kafka of the models behave as a real one?

One story of transactions is told to both: open ones beside committed ones, fenced owners, what they
left open, a producer that comes back. After each step, what a reader of committed records is given,
where it stands and where the log ends must be the same.
"""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from runtime.settings import Kafka, Settings
from runtime.topics_admin import ensure_topics
from tests.conftest import FreshName
from tests.model.memory_clients import MemoryConsumer, MemoryProducer
from tests.model.memory_kafka import MemoryKafka
from tests.waiting import eventually

Seen = tuple[str, list[bytes | None], int, tuple[int, int]]
"""What a step answered, the values of all committed records, the position, (first, end)."""

STEPS = (
    "A opens", "A sends 1", "B opens", "B sends 2", "B commits", "A sends 3", "A commits",
    "A sends 4", "A' opens", "A commits", "A' sends 5", "A' commits", "B sends 6", "B' opens",
    "B' sends 7", "B' sends 8", "B' commits", "B commits", "A' commits", "A' sends 9", "A'' opens",
)  # fmt: skip


class Story:
    """Producers A, A' and A'' share a transactional id, as B and B' do."""

    def __init__(
        self,
        topic: str,
        make_producer: Callable[[dict[str, Any]], Any],
        make_consumer: Callable[[dict[str, Any]], Any],
        servers: str = "",
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._topic = topic
        self._make_producer = make_producer
        self._make_consumer = make_consumer
        self._servers = servers
        self._settle = settle
        self._producers: dict[str, Any] = {}

    def tell(self, step: str) -> str:
        """Do a step; "" or the name of its error."""
        who, what, *rest = step.split()
        try:
            if what == "opens":
                made = self._producers[who] = self._make_producer(
                    {
                        "bootstrap.servers": self._servers,
                        "transactional.id": f"{self._topic}.{who.rstrip(chr(39))}",
                        "linger.ms": 0,
                    }
                )
                made.init_transactions(30)
                made.begin_transaction()
            elif what == "sends":
                self._producers[who].produce(self._topic, rest[0].encode(), b"k", 0)
                self._flush(self._producers[who])
            else:
                self._producers[who].commit_transaction(30)
                self._producers[who].begin_transaction()
        except KafkaException as error:
            return str(error.args[0].name())
        return ""

    def _flush(self, producer: Any) -> None:
        """Until it is on the log, as part of an open transaction."""
        if isinstance(producer, MemoryProducer):
            producer._send(len(producer._queue))
        else:
            assert producer.flush(30) == 0

    def look(self, answer: str) -> Seen:
        """What a new reader sees from the beginning."""
        self._settle()
        reader = self._make_consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"{self._topic}.reader",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                # The broker says that this is the end only after it has waited for more.
                "fetch.wait.max.ms": 20,
            }
        )
        try:
            reader.assign([TopicPartition(self._topic, 0, 0)])
            values: list[bytes | None] = []
            end: list[int] = []

            def is_read() -> bool:
                for message in reader.consume(100, 0.1):
                    if message.error() is None:
                        values.append(message.value())
                    else:
                        assert message.error().code() == KafkaError._PARTITION_EOF
                        end.append(message.offset())
                return bool(end)

            eventually(is_read, within_s=30, every_s=0)
            range_ = reader.get_watermark_offsets(TopicPartition(self._topic, 0), 30)
            return answer, values, end[0], range_
        finally:
            reader.close()


@pytest.fixture
def memory_story() -> Story:
    kafka = MemoryKafka()
    kafka.fate = lambda call: "sends" if call == "poll" else ""
    return Story(
        "story",
        lambda config: MemoryProducer(kafka, config),
        lambda config: MemoryConsumer(kafka, config),
        settle=kafka.settle,
    )


@pytest.mark.apache
def test_story_of_transactions_is_the_same_in_memory(
    kafka: str, fresh_name: FreshName, memory_story: Story
) -> None:
    settings = Settings(
        kafka=Kafka(bootstrap_servers=kafka, topic_prefix=f"{fresh_name('story')}.", partitions=1)
    )
    ensure_topics(settings)
    real = Story(settings.topic_names.accepted, Producer, Consumer, kafka)
    for step in STEPS:
        expected = memory_story.look(memory_story.tell(step))
        answer = real.tell(step)

        def is_the_same(answer: str = answer, expected: Seen = expected, step: str = step) -> bool:
            found = real.look(answer)
            assert found == expected, f"{step}: Kafka {found}, the model {expected}"
            return True

        # The marks of a transaction are written a little after its commit was answered.
        eventually(is_the_same, within_s=20)
