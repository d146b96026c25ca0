"""How does what has come due become messages that no crash loses?

A member of the group that shares `journeys.due` out writes each record down as a message before the
position moves; what is read again after a crash has the same id, and is there already.
"""

import threading
from collections.abc import Callable, Sequence

from consumers.messages.store import MessageStore, Put
from consumers.rules.messages import JOURNEY, Message
from runtime.clock import ClockMs, now_ms
from runtime.group_member import GroupMember, offset_in
from runtime.kafka_reader import Batch, KafkaReader
from runtime.logs import get_logger
from runtime.settings import Settings
from schemas.codec import JOURNEY_DUE, Malformed
from schemas.journeys import JourneyDue

AT_ONCE = 500
IDLE_WAIT_S = 0.2

Read = Callable[[int, int, bytes | None], Sequence[Put]]
"""The messages of a record at (partition, offset). Raises Malformed."""


class TopicToMessages(GroupMember):
    """Writes the records of one topic down as messages, in a thread of its own.

    Run it until `stop` is set. Raises StoreRefused when only a person can help.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        read: Read,
        store: MessageStore,
        stop: threading.Event,
        *,
        member: str | None = None,
        clock: ClockMs = now_ms,
    ) -> None:
        self._topic = topic
        self._read = read
        self._store = store
        self._clock = clock
        self._generation = settings.kafka.generation
        group = f"{settings.kafka.topic_prefix}automation.{topic}"
        reader = KafkaReader(settings, topic, group, member=member)
        super().__init__(reader, stop, role="automation", topic=topic)

    def step(self) -> None:
        """Write down what has come."""
        if self._reader.unstarted:
            self._retry(self._start, "start")
        for batch in self._reader.read(limit=AT_ONCE, wait_s=IDLE_WAIT_S, fill_s=0):
            self._retry(lambda batch=batch: self._take(batch), "schedule messages")  # type: ignore[misc]

    def _start(self) -> None:
        partitions = sorted(self._reader.unstarted)
        if partitions:
            stored = self._store.positions(self._topic, partitions)
            self._reader.start({p: offset_in(text, self._generation) for p, text in stored.items()})

    def _take(self, batch: Batch) -> None:
        put: list[Put] = []
        for offset, _, value in batch.records:
            try:
                put += self._read(batch.partition, offset, value)
            except Malformed as error:
                get_logger().error(
                    "not_a_message",
                    topic=self._topic,
                    partition=batch.partition,
                    offset=offset,
                    reason=error.reason,
                )
        place = f"{self._topic}:{batch.partition}"
        position = f"{self._generation}:{batch.next_offset}"
        self._store.schedule(put, self._clock(), {place: position})
        self._reader.commit({batch.partition: batch.next_offset})


def read_due(_: int, __: int, value: bytes | None) -> Sequence[Put]:
    """The message of a record of `journeys.due`."""
    due = JOURNEY_DUE.decode(value)
    return [(message_of_due(due), due.due_at_ms)]


def message_of_due(due: JourneyDue) -> Message:
    """What came due as a message, with all of it as its body."""
    return Message(
        id=due.message_id.hex(),
        pid=due.pid,
        kind=JOURNEY,
        source=due.journey_id,
        step=due.step,
        channel=due.channel,
        campaign_id=due.campaign_id,
        due_at_ms=due.due_at_ms,
        body=JOURNEY_DUE.encode(due),
    )
