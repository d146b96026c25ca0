"""How does a request to be forgotten become a proof that it was done?

The role `erasure`. It reads erasures.requested, suppresses again whom the API may not have got to
suppress, and then asks every store, over and over, until each says that nothing is left
(erasure_looks.py). It keeps asking until the last copy has gone with time: what a restored backup
or a late writer brings back meanwhile is found and taken out again.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaException, Producer

from consumers.erasures.certifying import Certifier
from consumers.erasures.fact_looks import FactLooks
from consumers.erasures.log_looks import LogLooks
from consumers.erasures.looks import Examiner
from consumers.erasures.profile_looks import ProfileLooks
from consumers.erasures.redis_files import RedisFiles
from consumers.erasures.store import ErasureStore
from consumers.erasures.stores import Limits, Stores
from consumers.messages.store import MessageStore
from consumers.rules.erasure import IDLE, Erasure, Horizons, next_look_ms
from runtime.clock import ClockMs, now_ms
from runtime.group_member import GroupMember, offset_in
from runtime.kafka_reader import Batch, KafkaReader
from runtime.logs import get_logger
from runtime.metrics import counter, gauge
from runtime.sealing import IdType, load_secret
from runtime.settings import Settings
from runtime.signing import Signer
from runtime.topics_admin import gone_after_ms
from runtime.vault import Erased, Vault
from schemas.codec import ERASURE_REQUESTED, Malformed
from schemas.errors import SettingInvalid, StoreUnavailable
from schemas.requests import ERASE, ErasureRequested
from schemas.topics import DAY_MS, PARTITIONER

ROLE = "erasure"
AT_ONCE = 1000
IDLE_WAIT_S = 0.2
HOUR_MS = 3_600_000
OLD_PARTS_MS = 550_000
"""old_parts_lifetime of `facts`, and its longest pause between two looks for old parts, which
ClickHouse draws out by up to ten seconds (sinks/migrations/0008_old_parts.sql)."""
DELIVERED_WITHIN_S = 10.0


def run_erasures(
    settings: Settings,
    stop: threading.Event,
    clock: ClockMs = now_ms,
    *,
    member: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Carry erasures out until `stop` is set.

    `on_ready` is called once, when its partitions are known. Raises StoreRefused when only a person
    can help; a store that is away is waited for.
    """
    with Desk(settings, clock, stop) as desk:
        role = ErasuresToCertificates(settings, desk, stop, clock, member=member)
        try:
            role.run(on_ready)
        finally:
            role.close()


class Desk:
    """Everything that carrying erasures out needs, for the role and for the command.

    Once `stop` is set, a look that waits for files or parts to be written anew raises Stopped.
    """

    def __init__(
        self, settings: Settings, clock: ClockMs = now_ms, stop: threading.Event | None = None
    ) -> None:
        self._topic = settings.topic_names.erasures
        self._servers = settings.kafka.bootstrap_servers
        self._look_every_ms = settings.erasure.look_every_hours * HOUR_MS
        self._clock = clock
        with ExitStack() as parts:
            signer = signer_of(settings)
            self.store = ErasureStore.from_settings(settings)
            parts.callback(self.store.close)
            self.vault = Vault.from_settings(settings)
            parts.callback(self.vault.close)
            profiles = ProfileLooks(settings)
            parts.callback(profiles.close)
            stop = stop or threading.Event()
            facts = FactLooks(settings, stop)
            parts.callback(facts.close)
            logs = LogLooks(settings)
            parts.callback(logs.close)
            messages = MessageStore.from_settings(settings)
            parts.callback(messages.close)
            files = RedisFiles(settings, stop)
            parts.callback(files.close)
            self.certifier = Certifier(self.store, signer, notes_of(settings), clock)
            self.stores = Stores(
                self.vault, profiles, facts, logs, messages, self.tell, files.rewrite
            )
            self._examiner = Examiner(self.stores, limits_of(settings), clock)
            self._parts = parts.pop_all()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def look(self, erasure_ids: Sequence[str]) -> None:
        """Each that is not final was looked at in every store, went as far as it can, and is
        stored; whoever got to a new status by it has a certificate of that. Redis' files forget the
        pids of those that are final."""
        kept = [
            (id_, found)
            for id_, found in zip(erasure_ids, self.store.read(erasure_ids), strict=True)
        ]
        named = [
            (found.erasure, found.subject)
            for _, found in kept
            if found is not None and found.erasure is not None and found.erasure.status != "final"
        ]
        subjects = {erasure.erasure_id: subject for erasure, subject in named}
        before = {erasure.erasure_id: erasure.status for erasure, _ in named}
        after = {each.erasure_id: each for each in self._examiner.examine(named)}
        news = [(each, subjects[id_]) for id_, each in after.items() if each.status != before[id_]]
        # The certificate first: a crash before the state is stored costs one certificate more,
        # which says the same.
        for each in self.certifier.certify(news):
            after[each.erasure_id] = each
            get_logger().info("erasure", erasure_id=each.erasure_id, status=each.status)
            counter("headwater_erasures_total").labels(each.status).inc()
        self._save(after.values())
        known = [found.erasure for _, found in kept if found is not None and found.erasure]
        ends = [after.get(each.erasure_id, each) for each in known]
        # Only now: storing that it is final is what takes the pid out of its state.
        self._save(self._examiner.clean([each for each in ends if each.status == "final"]))

    def _save(self, erasures: Iterable[Erasure]) -> None:
        now = self._clock()
        self.store.save([(each, next_look_ms(each, now, self._look_every_ms)) for each in erasures])

    def tell(self, requests: Sequence[ErasureRequested]) -> None:
        """The lanes will hear of it. Raises StoreUnavailable when Kafka does not confirm it."""
        producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": PARTITIONER,
                "message.timeout.ms": int(DELIVERED_WITHIN_S * 1000),
                "log_level": 2,
            }
        )
        failed: list[str] = []
        try:
            for each in requests:
                producer.produce(
                    self._topic,
                    ERASURE_REQUESTED.encode(each),
                    each.pid,
                    on_delivery=lambda error, _: failed.append(error.name()) if error else None,
                )
        except (KafkaException, BufferError) as error:
            raise StoreUnavailable(f"Kafka took no request ({type(error).__name__})") from None
        if producer.flush(DELIVERED_WITHIN_S + 1) or failed:
            raise StoreUnavailable(f"Kafka did not confirm requests ({failed[:1]})")


class ErasuresToCertificates(GroupMember):
    """The role of one process: a member of the group that shares erasures.requested out."""

    def __init__(
        self,
        settings: Settings,
        desk: Desk,
        stop: threading.Event,
        clock: ClockMs,
        *,
        member: str | None = None,
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._topic = settings.topic_names.erasures
        self._generation = settings.kafka.generation
        group = f"{settings.kafka.topic_prefix}{ROLE}"
        super().__init__(KafkaReader(settings, self._topic, group, member=member), stop, role=ROLE)

    def step(self) -> None:
        """Take up what has come, then look at what is due."""
        if self._reader.unstarted:
            self._retry(self._start, "start")
        for batch in self._reader.read(limit=AT_ONCE, wait_s=IDLE_WAIT_S, fill_s=0):
            self._retry(lambda batch=batch: self._take_up(batch), "take up erasures")  # type: ignore[misc]
        mine = self._reader.assigned
        due = self._retry(lambda: self._desk.store.due(mine, self._clock(), AT_ONCE), "find due")
        gauge("headwater_erasures_due").set(len(due))
        if due:
            self._retry(lambda: self._desk.look(due), "carry erasures out")

    def _start(self) -> None:
        partitions = sorted(self._reader.unstarted)
        if not partitions:
            return
        stored = self._desk.store.positions(self._topic, partitions)
        positions = {p: offset_in(text, self._generation) for p, text in stored.items()}
        self._reader.start(positions)
        # We may be here because something was put back from a copy.
        self._desk.store.hasten(partitions, self._clock())

    def _take_up(self, batch: Batch) -> None:
        """Every request of the batch is suppressed, stored and due; then the position moves."""
        requests: dict[bytes, ErasureRequested] = {}
        for offset, _, value in batch.records:
            try:
                request = ERASURE_REQUESTED.decode(value)
            except Malformed as error:
                get_logger().error(
                    "not_a_request",
                    topic=self._topic,
                    partition=batch.partition,
                    offset=offset,
                    reason=error.reason,
                )
                continue
            if request.phase == ERASE:
                requests.setdefault(request.erasure_id, request)
        self._desk.vault.suppress_erased(
            [
                Erased(
                    subject,
                    each.pid,
                    each.requested_at_ms,
                    each.erasure_id,
                    is_idle=each.reason == IDLE,
                )
                for each in requests.values()
                for subject in each.subjects or self._subjects_of(each.pid)
            ]
        )
        begun = [
            Erasure(
                each.erasure_id.hex(),
                each.pid.hex(),
                batch.partition,
                each.requested_at_ms,
                each.reason,
            )
            for each in requests.values()
        ]
        place = f"{self._topic}:{batch.partition}"
        position = f"{self._generation}:{batch.next_offset}"
        self._desk.store.begin(begun, self._clock(), {place: position})
        self._reader.commit({batch.partition: batch.next_offset})

    def _subjects_of(self, pid: bytes) -> list[str]:
        """Of a request that names none, as long as the vault knows."""
        (row,) = self._desk.vault.identifiers_of([pid])
        return [self._desk.vault.hash_of(cast("IdType", row[1]), row[2])] if row else []


def signer_of(settings: Settings) -> Signer:
    """The key of `[erasure] signing_key_file`. Raises SettingInvalid naming the setting."""
    file, where = settings.erasure.signing_key_file, "[erasure] signing_key_file"
    if not file:
        raise SettingInvalid(
            f"{where} is not set; name a file of 64 hexadecimal characters in headwater.toml or "
            "HEADWATER_ERASURE_SIGNING_KEY_FILE"
        )
    return Signer(load_secret(Path(file), where))


def limits_of(settings: Settings) -> Limits:
    """What the configuration says of erasures."""
    topics = settings.topic_names
    ages = {topic.name: gone_after_ms(topic, settings) for topic in topics.all()}
    chosen = settings.erasure
    return Limits(
        topics,
        settings.kafka.partitions,
        settings.kafka.generation,
        Horizons(
            ages[topics.collected],
            ages[topics.accepted],
            ages[topics.rejected],
            ages[topics.subjects],
            OLD_PARTS_MS,
            chosen.backups_days * DAY_MS,
            max(ages[each] for each in (topics.moves, topics.journeys, topics.segments_changed)),
        ),
        chosen.rewrite_every_hours * HOUR_MS,
        chosen.keep_consent_proof,
    )


def notes_of(settings: Settings) -> list[str]:
    """What stays on purpose, and what nobody looked into: said on every certificate."""
    topics = settings.topic_names
    days = {each.name: gone_after_ms(each, settings) // DAY_MS for each in topics.all()}
    notes = [
        "suppression: the keyed hash of the identifier and when it was erased, so that late, "
        "replayed and imported events are refused",
        f"{topics.erasures}, {topics.consents} and the ledger of consents: the random pid, with "
        f"nothing behind it, up to {days[topics.erasures]} days",
        f"accesses: who read data of the pid, up to {settings.tables.accesses.retention_days} days",
        "append-only file of the vault: the pid of this erasure, until the file is written anew, "
        f"at most {settings.erasure.rewrite_every_hours} hours after it became final",
        "counters: anonymous sums by campaign and minute",
        f"backups: nobody looks into them; they are gone {settings.erasure.backups_days} days "
        "after, as [erasure] backups_days says",
    ]
    if settings.erasure.keep_consent_proof:
        notes.append(
            "consents: the keyed hash stays linked to the pid, as proof of what was agreed"
        )
    return notes
