"""Through what does a message go?

By e-mail over the server of `[smtp]`; where there is none, into the outbox, which shows what would
have gone. Any other channel is the webhook of that name: its receiver knows a repeated call by the
message's id. A channel is opened first and handed the message afterwards, so that the moment
between a permission and its use is short.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any, Literal

import orjson

from consumers.messages.gate import Allowed
from consumers.messages.store import MessageStore
from consumers.messages.templates_of_messages import Templates
from consumers.rules.cart_view import view_cart
from consumers.rules.messages import EMAIL, Message, Words
from consumers.rules.times import rfc3339
from runtime.clock import ClockMs, now_ms, real_ms
from runtime.consent_links import Links, unsubscribe_headers
from runtime.settings import Settings
from runtime.smtp import SmtpServer, write_mail
from runtime.webhooks import Caller
from schemas.journeys import JourneyDue

NOBODY = Address("Nobody", "nobody", "localhost")


@dataclass(frozen=True, slots=True)
class Mail:
    """A message as its channel takes it: `mail` and its addresses, or `body` of a call.

    `sealed` is what the outbox keeps of it.
    """

    message_id: str
    sealed: bytes
    body: bytes = b""
    mail: EmailMessage | None = None
    to: Address | None = None
    message: Message | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """What the channel said. `is_recipients` tells that nobody has the address."""

    outcome: Literal["taken", "refused", "not_now", "in_doubt"]
    values: Words = field(default_factory=dict)
    is_recipients: bool = False


Hand = Callable[[Mail], Awaitable[Handed]]


class _Known(dict[str, Any]):
    """Traits of a person; one that is not known is empty, and no fault of the template."""

    def __missing__(self, _: str) -> str:
        return ""


class Channels:
    """Belongs to one event loop. Raises SettingInvalid for a channel that cannot work."""

    def __init__(self, settings: Settings, store: MessageStore, clock: ClockMs = now_ms) -> None:
        self._store = store
        self._clock = clock
        self._links = Links.from_settings(settings)
        self._templates = Templates(settings)
        self._smtp = SmtpServer(settings.smtp) if settings.smtp.host else None
        self._callers = {chosen.name: Caller(chosen) for chosen in settings.webhooks}

    def has(self, channel: str) -> bool:
        """False for a channel that is none here."""
        return channel == EMAIL or channel in self._callers

    def write(self, message: Message, due: JourneyDue, allowed: Allowed, now_ms: int) -> Mail:
        """The message as its channel takes it. Raises TemplateFault."""
        pid = message.pid
        unsubscribe = self._links.unsubscribe(pid, due.channel, due.topic, now_ms)
        links = {
            "unsubscribe_url": unsubscribe.url,
            "preferences_url": self._links.preferences(pid, now_ms).url,
        }
        cart = view_cart(due)
        if message.channel != EMAIL:
            body = _body(message, due, allowed, cart, links, now_ms)
            return Mail(message.id, b"", body, message=message)
        known: Mapping[str, Any] = {
            "step": due.step,
            "journey": due.journey_id,
            "campaign_id": due.campaign_id,
            "cart": cart,
            "person": _Known(allowed.traits),
            **links,
        }
        said = self._templates.render(due.template, known)
        assert allowed.address is not None
        sender = self._smtp.sender if self._smtp else NOBODY
        mail = write_mail(
            sender=sender,
            to=allowed.address,
            subject=said.subject,
            text=said.text,
            html=said.html,
            message_id=message.id,
            at=datetime.fromtimestamp(now_ms / 1000, UTC),
            headers=unsubscribe_headers(unsubscribe),
        )
        shown = {
            "to": str(allowed.address),
            "subject": said.subject,
            "text": said.text,
            "html": said.html,
            "journey_id": due.journey_id,
            "step": due.step,
        }
        sealed = allowed.person.seal(orjson.dumps(shown), bytes.fromhex(message.id))
        return Mail(message.id, sealed, mail=mail, to=allowed.address, message=message)

    @asynccontextmanager
    async def opened(self, channel: str) -> AsyncIterator[Hand]:
        """What takes one message. Raises StoreUnavailable when it cannot be reached."""
        if channel != EMAIL:
            yield self._call(channel)
        elif self._smtp is None:
            yield self._put_out
        else:
            smtp = self._smtp
            async with smtp.connected() as connection:

                async def send(mail: Mail) -> Handed:
                    assert mail.mail is not None and mail.to is not None
                    answer = await connection.send(mail.mail, smtp.sender, mail.to)
                    values = {"code": answer.code} if answer.code else {}
                    return Handed(answer.outcome, values, answer.is_recipients)

                yield send

    async def close(self) -> None:
        """Give the connections back."""
        for caller in self._callers.values():
            await caller.close()

    async def _put_out(self, mail: Mail) -> Handed:
        assert mail.message is not None
        put = self._store.put_out
        await asyncio.to_thread(put, mail.message, mail.sealed, self._clock())
        return Handed("taken", {"to": "outbox"})

    def _call(self, channel: str) -> Hand:
        caller = self._callers[channel]

        async def call(mail: Mail) -> Handed:
            answer = await caller.call(mail.message_id, mail.body, real_ms())
            values = {"webhook": channel, "answer": answer.why}
            if answer.is_taken:
                return Handed("taken", values)
            may_pass = answer.may_pass and answer.why != "private_address"
            return Handed("not_now" if may_pass else "refused", values)

        return call


def _body(
    message: Message,
    due: JourneyDue,
    allowed: Allowed,
    cart: Mapping[str, Any],
    links: Mapping[str, str],
    now_ms: int,
) -> bytes:
    return orjson.dumps(
        {
            "type": "message.due",
            "timestamp": rfc3339(now_ms),
            "data": {
                "message_id": message.id,
                "subject": f"{allowed.id_type}:{allowed.external_id}",
                "journey_id": due.journey_id,
                "step": due.step,
                "campaign_id": due.campaign_id,
                "channel": due.channel,
                "topic": due.topic,
                "template": due.template,
                "cart": cart,
                **links,
            },
        }
    )
