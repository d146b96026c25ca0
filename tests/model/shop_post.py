"""Does automation send what it should, on a real Valkey and to a real mail server, however often it
dies?

The product's own code: what comes due is read and written down, claimed, asked about at the gate, of
a vault, an overlay and profiles that the real sink wrote, and handed to a mail server. Only Kafka is
in memory, and the clock is the shop's. Processes die at every step of a message, before what the
store is told and after it, and others take over; what was read is read again from an older place;
profiles lag, and the server is busy at times. Stories and lanes follow from the seed; which of several
messages dies first is left to the threads.
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from consumers.consents.send_gate import SendGate
from consumers.messages.channels import Channels
from consumers.messages.gate import MessageGate
from consumers.messages.journeys_to_messages import TopicToMessages, read_due
from consumers.messages.messages_to_people import Report, Sender
from consumers.messages.store import MessageStore
from consumers.profiles.profile_freshness import ProfileFreshness
from consumers.profiles.profiles_api import Profiles
from runtime.consent_overlay import ConsentOverlay
from runtime.sealing import Person
from runtime.settings import Settings
from runtime.vault import Vault
from runtime.vault_rows import Erased
from schemas.decisions import Known
from schemas.subjects import Consent
from sinks.subjects_to_redis import SubjectsToRedis
from tests.integration.serving import settings_of
from tests.lane_log import TOPICS
from tests.mailing import Clock, Killed, Mailbox, smtp_at
from tests.model.cart_story import Fact
from tests.model.memory_kafka import MemoryKafka
from tests.model.mortal_store import Fate, MortalStore
from tests.model.shop_sending import LIMITS

ALLOWED = ("purpose/advertising", "granted"), ("email/cart", "subscribed")
SAID = {
    "withdraw": ("purpose/advertising", "withdrawn"),
    "grant": ("purpose/advertising", "granted"),
    "unsubscribe": ("email/cart", "unsubscribed"),
    "subscribe": ("email/cart", "subscribed"),
}
REREAD_RECORDS = 50
TROUBLE = 0.08
WORKS_WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class Mailed:
    """A mail that the server took: when it says it was written, UTC ms, and to whom."""

    at_ms: int
    message_id: bytes
    to: str


class Post:
    """Automation of one shop. Everything but mails is asked for by the shop's thread."""

    def __init__(
        self, settings: Settings, kafka: MemoryKafka, mailbox: Mailbox, fate: Fate
    ) -> None:
        self.settings = settings
        self.fate = fate
        self.clock = Clock(0)
        self.mailed: list[Mailed] = []
        self.told: set[bytes] = set()
        self.addresses: dict[bytes, str] = {}
        self.erased: set[bytes] = set()
        self.vault = Vault.from_settings(settings)
        self.store = MessageStore.from_settings(settings)
        self._kafka = kafka
        self._mailbox = mailbox
        self._erased_rows: dict[bytes, Erased] = {}
        self._to_forget: list[bytes] = []
        self._sink = SubjectsToRedis(settings, threading.Event())
        self._is_behind = False
        self._reads: tuple[TopicToMessages, MortalStore] | None = None
        self._processes = 0
        self._fresh = ProfileFreshness(settings)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(4))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._open())

    # -- people

    def people(self, count: int) -> list[Person]:
        """So many who are known by an address and want to hear of their carts."""
        found: list[Person] = []
        for first in range(0, count, 500):
            numbers = range(first, min(count, first + 500))
            made = self.vault.resolve([("email", address_of(number)) for number in numbers])
            people = [each for each in made if isinstance(each, Person)]
            assert len(people) == len(numbers)
            self._decide({each.pid: ALLOWED for each in people}, 1000)
            found += people
        for number, each in enumerate(found):
            subject = self.vault.hash_of("email", address_of(number))
            erasure_id = self.vault.erasure_id_of(each.pid)
            self.addresses[each.pid] = address_of(number)
            self._erased_rows[each.pid] = Erased(subject, each.pid, 0, erasure_id)
        return found

    def decided(self, pid: bytes, fact: Fact, now_ms: int) -> None:
        """They withdrew, allowed again or were erased: it is in force before the lanes hear."""
        if fact.kind != "erase":
            # A copy is the same decision, of the same moment: it must not undo a later one.
            self._decide({pid: [SAID[fact.kind]]}, fact.arrives_at_ms, fact.event_id)
            return
        self.vault.suppress_erased([replace(self._erased_rows[pid], erased_at_ms=now_ms)])
        self.erased.add(pid)
        # The role `erasure` may be there before automation, or after it.
        if self.fate.chance.random() < 0.5:
            self.store.forget([pid])
        else:
            self._to_forget.append(pid)

    # -- work

    def next_ms(self) -> int | None:
        """When it must be looked at again."""
        return self.store.next_wake_ms()

    def work(self, now_ms: int) -> None:
        """What is due by `now_ms` was sent, held or dropped, by as many processes as it took."""
        self.clock.at_ms = now_ms
        topic = self.settings.topic_names.subjects
        self._is_behind = self.fate.chance.random() < TROUBLE
        while not self._is_behind and any(
            self._sink._positions.get(p, 0) < self._end(topic, p)
            for p in range(self._kafka.partitions)
        ):
            self._sink.step()
        is_busy = self.fate.chance.random() < TROUBLE
        self._mailbox.on_rcpt = "450 busy" if is_busy else "250 OK"
        while True:
            try:
                self._read_due()
                wake_ms = self.store.next_wake_ms()
                if wake_ms is None or wake_ms > now_ms:
                    break
                self._run(self._sender().step())
            except Killed:
                self._die()
        forgotten, self._to_forget = self._to_forget, []
        if forgotten:
            self.store.forget(forgotten)
        self._collect()

    def require_fresh(self) -> None:
        """As ProfileFreshness: by the real cursors, against the log in memory."""
        self._fresh.require()

    def close(self) -> None:
        """Give everything back."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WORKS_WITHIN_S)
        self._loop.close()
        self._sink.close()
        if self._reads is not None:
            self._reads[0].close()
            self._reads[1].close()
        self._fresh.close()
        self.store.close()
        self.vault.close()

    # -- processes

    def _process(self) -> tuple[TopicToMessages, MortalStore]:
        if self._reads is None:
            self._processes += 1
            store = MortalStore.from_settings(self.settings)
            store.live(self.fate, self.clock)
            topic = self.settings.topic_names.journeys
            stop = threading.Event()
            reads = TopicToMessages(self.settings, topic, read_due, store, stop, clock=self.clock)
            self._reads = reads, store
        return self._reads

    def _sender(self) -> Sender:
        return Sender(
            self._process()[1],
            self._gate,
            self._channels,
            self._tell,
            self.clock,
            require_fresh=self.require_fresh,
            owner=f"o{self._processes}",
            chance=lambda: 1.0,
        )

    def _read_due(self) -> None:
        reads, store = self._process()
        topic = self.settings.topic_names.journeys
        while any(
            store.read_to.get(f"{topic}:{p}", 0) < self._end(topic, p)
            for p in range(self._kafka.partitions)
        ):
            reads.step()

    def _die(self) -> None:
        assert self._reads is not None
        reads, store = self._reads
        self._reads = None
        reads.close()
        store.bury()
        store.close()
        if self.fate.chance.random() < 0.3:
            self._go_back()

    def _go_back(self) -> None:
        """As after a copy that is put back: what was read is read again."""
        topic = self.settings.topic_names.journeys
        for p, text in self.store.positions(topic, range(self._kafka.partitions)).items():
            if text:
                offset = max(0, int(text.partition(":")[2]) - REREAD_RECORDS)
                self.store.schedule([], self.clock.at_ms, {f"{topic}:{p}": f"1:{offset}"})
        self.fate.met["read again from before"] += 1

    async def _open(self) -> None:
        settings = self.settings
        self._profiles = Profiles(settings, Vault.from_settings(settings))
        self._asked = SendGate(settings, Vault.from_settings(settings), self._profiles, self.clock)
        self._gate = MessageGate(settings, self.vault, self._profiles, self._asked, self.store)
        self._channels = Channels(settings, self.store, self.clock)
        self._overlay = ConsentOverlay(settings)

    async def _close(self) -> None:
        await self._channels.close()
        await self._gate.close()
        await self._asked.close()
        await self._profiles.close()
        await self._overlay.close()
        await self._loop.shutdown_default_executor()

    async def _tell(self, report: Report) -> None:
        assert report.what == "Email Sent"
        self.told.add(bytes.fromhex(report.message.id))

    def _decide(
        self, decided: dict[bytes, Sequence[tuple[str, str]]], at_ms: int, record_id: bytes = b""
    ) -> None:
        known = {
            pid: [
                Known(
                    Consent(on, status, at_ms, None, at_ms),
                    record_id or self._random_id(),
                    bytes(16),
                )
                for on, status in each
            ]
            for pid, each in decided.items()
        }
        self._run(self._overlay.put(known))

    def _random_id(self) -> bytes:
        return self.fate.chance.randbytes(16)

    def _collect(self) -> None:
        mails, self._mailbox.mails = self._mailbox.mails, []
        for mail in mails:
            name = mail["Message-ID"].strip("<>").partition("@")[0]
            at_ms = int(mail["Date"].datetime.timestamp()) * 1000
            self.mailed.append(Mailed(at_ms, bytes.fromhex(name), str(mail["To"])))

    def _end(self, topic: str, p: int) -> int:
        return self._kafka.logs[topic, p].stable_end()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WORKS_WITHIN_S)


def address_of(number: int) -> str:
    """Where that person gets their mail."""
    return f"p{number}@example.com"


def shop_settings(directory: Path, redis_url: str, name: str, smtp_port: int) -> Settings:
    """Those of a shop whose topics are in memory; people have the limits of its reference."""
    values = settings_of(directory, redis_url=redis_url, name=name).model_dump()
    values["kafka"]["topic_prefix"] = TOPICS.prefix
    values["vault"]["durable_writes"] = False  # no power cut is played
    values["sending"] |= {
        "key_prefix": f"{name}:sending:",
        "most_a_day": LIMITS.most_a_day,
        "most_a_week": LIMITS.most_a_week,
    }
    values["consent"]["public_url"] = "https://shop.example"
    values["smtp"] |= smtp_at(smtp_port)
    return Settings.model_validate(values)
