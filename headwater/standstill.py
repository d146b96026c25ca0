"""Has the house done all that it has to do at this moment, so that its clock may go on?

What a lane has applied, and whom it has to look at again by when, stands in the log of `subjects`,
in the transactions that it committed; what became of messages stands in their store. So whoever
reads both knows, without asking any process and without a pause that is hoped to be long enough.
"""

import time
from collections import Counter
from collections.abc import Callable

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from consumers.messages.messages_to_people import TOLD_WITHIN_MS
from consumers.messages.store import MessageStore
from producers.rules.cart_ledger import Moved, Way
from runtime.group_member import offset_in
from runtime.settings import Settings
from schemas.codec import CURSOR, SEGMENT_CHANGED, SUBJECT
from schemas.errors import StoreUnavailable
from schemas.subjects import CURSOR_KEY, PID_BYTES

ANSWER_WITHIN_S = 10.0
LOOK_EVERY_S = 0.03
_MANY = 1000


class Standstill:
    """Looks at a house; for one thread. `moves` are the changes of segments since the beginning:
    how many entered or left which one when."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topic_names
        self._inputs = topics.inputs
        self._subjects, self._changes, self._due = (
            topics.subjects, topics.segments_changed, topics.journeys,
        )  # fmt: skip
        self._partitions = range(settings.kafka.partitions)
        self._generation = settings.kafka.generation
        self._applied: dict[tuple[str, int], int] = {}
        self._wakes_ms: dict[bytes, int] = {}
        self.moves: Counter[Moved] = Counter()
        self._store = MessageStore.from_settings(settings)
        # A question waits behind the fetch that its connection has under way: whoever reads does
        # not ask as well.
        self._log, self._committed_ends, self._open_ends = (
            Consumer(
                {
                    "bootstrap.servers": settings.kafka.bootstrap_servers,
                    # Named because librdkafka asks for it; no offset is ever committed.
                    "group.id": f"{settings.kafka.topic_prefix}headwater.standstill",
                    "enable.auto.commit": False,
                    "isolation.level": isolation,
                }
            )
            for isolation in ("read_committed", "read_committed", "read_uncommitted")
        )
        self._log.assign(
            [
                TopicPartition(topic, p, OFFSET_BEGINNING)
                for topic in (self._subjects, self._changes)
                for p in self._partitions
            ]
        )

    def close(self) -> None:
        """Give the connections back."""
        self._log.close()
        self._committed_ends.close()
        self._open_ends.close()
        self._store.close()

    def wait(self, now_ms: int, within_s: float, stopped: Callable[[], bool]) -> bool:
        """True once nothing is left to do at `now_ms` of the house's clock; False after `within_s`,
        or when `stopped`. Raises StoreUnavailable when a server does not answer."""
        until_s = time.monotonic() + within_s
        while not stopped():
            if self._is_reached(now_ms):
                return True
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_EVERY_S)
        return False

    def next_ms(self) -> int | None:
        """When the house has something to do again without being told; None for never."""
        wakes = [*self._wakes_ms.values()]
        message_ms = self._store.next_wake_ms()
        return min([*wakes, *([] if message_ms is None else [message_ms])], default=None)

    def _is_reached(self, now_ms: int) -> bool:
        ends = {
            (topic, p): self._end(self._committed_ends, topic, p)
            for topic in self._inputs
            for p in self._partitions
        }
        self._read_on()
        if any(self._applied.get(place, 0) < end for place, end in ends.items()):
            return False
        # Everybody who was due was looked at: their record says when they are due again.
        if any(at_ms <= now_ms for at_ms in self._wakes_ms.values()):
            return False
        return self._has_sent(now_ms)

    def _has_sent(self, now_ms: int) -> bool:
        """Every message that is due was taken in, and each is over or held."""
        stored = self._store.positions(self._due, self._partitions)
        for p in self._partitions:
            at = offset_in(stored[p], self._generation) or 0
            # With records of transactions that nobody may read yet: these may be about to be.
            if at < self._end(self._open_ends, self._due, p):
                return False
        if self._store.newest(("claimed", "sending", "scheduled"), 1):
            return False
        wake_ms = self._store.next_wake_ms()
        return wake_ms is None or wake_ms > now_ms + TOLD_WITHIN_MS

    def _end(self, asked: Consumer, topic: str, p: int) -> int:
        try:
            found = asked.get_watermark_offsets(TopicPartition(topic, p), ANSWER_WITHIN_S)
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka did not tell the end of {topic}[{p}]") from error
        first, end = found
        return int(end) if end > first else 0

    def _read_on(self) -> None:
        while messages := self._log.consume(_MANY, 0.01):
            for message in messages:
                if message.error() is not None:
                    raise StoreUnavailable(f"the log cannot be read: {message.error()}")
                value = message.value()
                if message.topic() == self._changes:
                    changed = SEGMENT_CHANGED.decode(value)
                    way: Way = "entered" if changed.entered else "left"
                    self.moves[changed.segment_id, way, changed.occurred_at_ms] += 1
                else:
                    self._note(message.key(), value, message.partition())

    def _note(self, key: bytes, value: bytes | None, p: int) -> None:
        if key == CURSOR_KEY:
            for position in CURSOR.decode(value).positions:
                self._applied[position.topic, p] = position.next_offset
        elif len(key) == PID_BYTES:
            self._wakes_ms.pop(key, None)
            if value is not None and (at_ms := SUBJECT.decode(value).wake_at_ms):
                self._wakes_ms[key] = at_ms
