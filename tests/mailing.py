"""A post office on a real Valkey, with a real mail server and people who have a profile."""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import redis
from aiosmtpd.controller import Controller

from consumers.consents.send_gate import SendGate
from consumers.messages.channels import Channels
from consumers.messages.gate import MessageGate
from consumers.messages.journeys_to_messages import message_of_due
from consumers.messages.messages_to_people import Report, Sender
from consumers.messages.store import MessageStore
from consumers.profiles.profiles_api import Profiles
from consumers.rules.messages import Decided, History, Message
from runtime.consent_overlay import ConsentOverlay
from runtime.processes import free_ports
from runtime.sealing import Person
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.carts import SET, CartChange, CartLine
from schemas.codec import SUBJECT
from schemas.decisions import Known
from schemas.identity import RANK, Claim
from schemas.journeys import JourneyDue
from schemas.subjects import Consent, Money, Purchase, Subject, Trait
from tests.integration.serving import settings_of

NOON_MS = 1_790_000_000_000
"""2026-09-21T13:33:20Z, a Monday: nobody in Europe or America has quiet hours."""
EVENT = bytes(range(16))
YES = ("purpose/advertising", "granted"), ("email/cart", "subscribed")


def smtp_at(port: int, from_address: str = "shop@example.com") -> dict[str, Any]:
    """`[smtp]` of a mail server on this host that encrypts nothing."""
    return {
        "host": "127.0.0.1",
        "port": port,
        "encryption": "none",
        "from_address": from_address,
    }


@dataclass
class Clock:
    """Stands still until a test moves it."""

    at_ms: int = NOON_MS

    def __call__(self) -> int:
        return self.at_ms


class Mailbox:
    """What a real SMTP server took; answers to recipients are a test's."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.raw: list[bytes] = []  # of each mail
        self.texts = 0  # handed over, taken or not
        self.on_rcpt = "250 OK"
        self.on_data = "250 OK"
        self.cut_at_data = False
        self.answers = threading.Event()
        self.answers.set()

    async def handle_RCPT(self, server: Any, _: Any, envelope: Any, to: str, __: Any) -> str:  # noqa: N802
        if self.on_rcpt.startswith("2"):
            envelope.rcpt_tos.append(to)
        return self.on_rcpt

    async def handle_DATA(self, server: Any, _: Any, envelope: Any) -> str:  # noqa: N802
        self.texts += 1
        if self.on_data.startswith("2"):
            self.raw.append(envelope.content)
            mail = message_from_bytes(envelope.content, policy=default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
        await asyncio.to_thread(self.answers.wait, 60)
        if self.cut_at_data:
            server.transport.abort()
        return self.on_data


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    """A mail server on a free port."""
    mailbox = Mailbox()
    (port,) = free_ports(1)
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox, port
    finally:
        controller.stop()


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@dataclass
class Office:
    """Messages of one test: schedules, sends, looks up."""

    settings: Settings
    redis: "redis.Redis"
    vault: Vault
    store: MessageStore
    clock: Clock = field(default_factory=Clock)
    told: list[Report] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    owners: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def person(
        self,
        *,
        traits: dict[str, Any] | None = None,
        decided: tuple[tuple[str, str], ...] = YES,
        **changes: Any,
    ) -> Person:
        """Somebody with a profile who allowed mails about carts."""
        number = next(self.numbers)
        (person,) = self.vault.resolve([("user", f"u{number}")])
        assert isinstance(person, Person)
        self.profile(person, traits=traits or {"email": f"u{number}@example.com"}, **changes)
        self.decide(person, *decided)
        return person

    def profile(self, person: Person, *, traits: dict[str, Any], **changes: Any) -> None:
        """What the sink would have written of them."""
        sealed = [
            Trait(_key(name), 0, EVENT, person.seal(orjson.dumps([name, value]), EVENT))
            for name, value in traits.items()
        ]
        fields: dict[str, Any] = {
            "pid": person.pid, "erased_at_ms": None, "first_seen_ms": 0, "last_seen_ms": 0,
            "events": 1, "orders": 0, "refunds": 0, "spent": [], "refunded": [], "segments": [],
            "traits": sealed, "consents": [], "order_keys": b"", "visit_campaigns": [],
            "visits": b"",
        }  # fmt: skip
        key = f"{self.settings.redis.key_prefix}{person.pid.hex()}"
        value = SUBJECT.encode(Subject(**(fields | changes)))
        self.redis.hset(key, mapping={"g": 1, "v": 1, "p": value})

    def decide(self, person: Person, *decided: tuple[str, str], at_ms: int = 1000) -> None:
        """These decisions are in force."""

        async def put() -> None:
            overlay = ConsentOverlay(self.settings)
            known = [
                Known(Consent(on, status, at_ms, None, at_ms), _id(f"{on}{at_ms}"), EVENT)
                for on, status in decided
            ]
            await overlay.put({person.pid: known})
            await overlay.close()

        asyncio.run(put())

    def claim(self, claimed: Person, by: Person) -> None:
        """The first is the second, by a call that said so."""

        async def put() -> None:
            overlay = ConsentOverlay(self.settings)
            await overlay.kin.put(
                [(claimed.pid, Claim(by.pid, RANK["user"], 1000, EVENT, "identify"))]
            )
            await overlay.close()

        asyncio.run(put())

    def due(self, person: Person, **changes: Any) -> JourneyDue:
        """A message about a cart of this person, due now."""
        message_id = next(self.numbers).to_bytes(16, "big")
        return due_of(person.pid, self.clock(), **({"message_id": message_id} | changes))

    def schedule(self, person: Person, **changes: Any) -> Message:
        """The message is scheduled."""
        message = message_of_due(self.due(person, **changes))
        assert self.store.schedule([(message, message.due_at_ms)], self.clock(), {}) == 1
        return message

    def work(
        self,
        use: Callable[[Sender], Awaitable[Any]] | None = None,
        *,
        tell: Callable[[Report], Awaitable[None]] | None = None,
    ) -> None:
        """One step of a process of its own; or what `use` does with it."""

        async def note(report: Report) -> None:
            self.told.append(report)

        async def run() -> None:
            profiles = Profiles(self.settings, Vault.from_settings(self.settings))
            gate = SendGate(self.settings, Vault.from_settings(self.settings), profiles, self.clock)
            channels = Channels(self.settings, self.store, self.clock)
            asked = MessageGate(self.settings, self.vault, profiles, gate, self.store)
            try:
                sender = Sender(
                    self.store,
                    asked,
                    channels,
                    tell or note,
                    self.clock,
                    owner=f"o{next(self.owners)}",
                    chance=lambda: 1.0,
                )
                await (use(sender) if use else sender.step())
            finally:
                await channels.close()
                await asked.close()
                await gate.close()
                await profiles.close()

        asyncio.run(run())

    def history(self, message: Message) -> History:
        """The message as it stands."""
        (found,) = [
            each for each in self.store.of_person([message.pid]) if each.message.id == message.id
        ]
        return found

    def last(self, message: Message) -> Decided:
        """The newest decision over it."""
        return self.history(message).decisions[-1]


@contextmanager
def office(
    directory: Path, redis_url: str, client: "redis.Redis", name: str, **sections: Any
) -> Iterator[Office]:
    """An office whose keys nobody else has; `sections` are of the configuration."""
    made = settings_of(directory, redis_url=redis_url, name=name)
    values = made.model_dump() | sections
    values["sending"] = sections.get("sending", {}) | {"key_prefix": f"{name}:sending:"}
    settings = Settings.model_validate(values)
    vault, store = Vault.from_settings(settings), MessageStore.from_settings(settings)
    try:
        yield Office(settings, client, vault, store)
    finally:
        store.close()
        vault.close()


def looked(at_ms: int, quantity: int = 0) -> CartChange:
    """Somebody looked at their cart then, and so many of the product of `due_of` were in it."""
    lines = [CartLine("p1", "", "", "", "", "", quantity, None, "")] if quantity else []
    return CartChange(at_ms, bytes(8), SET, lines)


def due_of(pid: bytes, at_ms: int, **changes: Any) -> JourneyDue:
    """A message about a cart, due then."""
    fields: dict[str, Any] = {
        "message_id": bytes(16),
        "pid": pid,
        "journey_id": "abandoned_cart",
        "step": 1,
        "anchor_at_ms": at_ms - 3_600_000,
        "due_at_ms": at_ms,
        "decided_at_ms": at_ms,
        "expires_at_ms": at_ms + 30 * 86_400_000,
        "held_out": False,
        "lines": [
            CartLine(
                "p1", "sku1", "Kávovar <b>& mlýnek</b>", "red", "https://shop.example/p1", "",
                2, 1_249_500_000, "CZK",
            )
        ],
        "totals": [Money("CZK", 2_499_000_000)],
        "campaign_id": "cart",
        "channel": "email",
        "topic": "cart",
        "template": "cart",
        "generation": 1,
        "lane": 0,
        "seq": 1,
        "index": 0,
    }  # fmt: skip
    return JourneyDue(**(fields | changes))


def bought(at_ms: int) -> Purchase:
    """An order at that time."""
    return Purchase(b"k" * 8, b"t" * 8, at_ms, 10_000_000, "CZK", "", False)


def _key(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


def _id(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
