"""What runs as the role `automation`?

Messages that come due, and changes of segments that somebody hears of, are written down by a thread
each and sent by another, whose event loop asks the gate and talks to mail server and webhooks. What
went out comes back as an event through a collector of its own, sealed and deduplicated like every
other.
"""

import asyncio
import threading
from collections.abc import Callable
from secrets import token_urlsafe

from consumers.consents.send_gate import SendGate
from consumers.messages.channels import Channels
from consumers.messages.gate import MessageGate
from consumers.messages.journeys_to_messages import Read, TopicToMessages, read_due
from consumers.messages.messages_to_people import Report, Sender
from consumers.messages.store import MessageStore
from consumers.profiles.profile_freshness import ProfileFreshness
from consumers.profiles.profiles_api import Profiles
from consumers.rules.times import rfc3339
from consumers.segments.segments_to_calls import ChangesToCalls
from producers.calls_to_collected import Collector
from producers.calls_to_collected import Sender as Source
from producers.rules.bodies import Body
from runtime.clock import ClockMs, now_ms, real_ms
from runtime.logs import get_logger
from runtime.retry import Stopped
from runtime.settings import Settings
from runtime.settings import Source as NamedSource
from runtime.vault import Vault
from schemas.errors import StoreUnavailable

SOURCE = "automation"
"""The source of the events that tell of messages."""

ASKS_AGAIN_AFTER_S = 1.0
_IDENTIFIED_BY = {"user": "userId", "anonymous": "anonymousId"}


def run_automation(
    settings: Settings,
    stop: threading.Event,
    clock: ClockMs = now_ms,
    *,
    member: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Send until `stop` is set; waits for stores that are away.

    `on_ready` is called once, when it is known from where on messages are read. Raises
    SettingInvalid when a channel cannot work as configured, StoreRefused when only a person can
    help.
    """
    store = MessageStore.from_settings(settings)
    faults: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except Stopped:
                get_logger().info("stopped_while_waiting", role=SOURCE)
            except BaseException as fault:
                faults.append(fault)
                stop.set()

        return run

    # Made once before anything starts: a setting that is wrong is told before the role is ready.
    Channels(settings, store)
    topics = settings.topic_names
    reads: dict[str, Read] = {
        topics.journeys: read_due,
        topics.segments_changed: ChangesToCalls(settings),
    }
    # Each for a thread of its own: one that waits does not hold up the other.
    journeys, segments = (
        TopicToMessages(settings, topic, read, store, stop, member=member, clock=clock)
        for topic, read in reads.items()
    )
    threads = [
        threading.Thread(target=guarded(work), name=name)
        for name, work in (
            ("send", lambda: asyncio.run(_send(settings, store, stop, clock))),
            ("segments", segments.run),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        journeys.run(on_ready)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        journeys.close()
        segments.close()
        store.close()
    if faults:
        raise faults[0]


async def _send(
    settings: Settings, store: MessageStore, stop: threading.Event, clock: ClockMs
) -> None:
    collector = Collector.from_settings(settings)
    await _start(collector, stop)
    profiles = Profiles(settings, Vault.from_settings(settings))
    gate = SendGate(settings, Vault.from_settings(settings), profiles, clock)
    vault = Vault.from_settings(settings)
    messages = MessageGate(settings, vault, profiles, gate, store)
    channels = Channels(settings, store, clock)
    freshness = ProfileFreshness(settings, stop)
    source = Source(NamedSource(name=SOURCE, write_key=token_urlsafe()), real_ms())

    async def tell(report: Report) -> None:
        body = Body([call_of(report)], None, None, None, False)
        await collector.collect(body, source, None, clock())

    try:
        fresh = freshness.require
        await Sender(store, messages, channels, tell, clock, require_fresh=fresh).run(stop)
    finally:
        await channels.close()
        await messages.close()
        vault.close()
        freshness.close()
        await gate.close()
        await profiles.close()
        await collector.close()


async def _start(collector: Collector, stop: threading.Event) -> None:
    """The collector can take calls; its vault is waited for. Raises Stopped."""
    while True:
        try:
            await collector.start()
        except StoreUnavailable as error:
            get_logger().warning("store_unavailable", doing="start to send", fault=str(error))
            if stop.is_set():
                raise Stopped from error
            await asyncio.sleep(ASKS_AGAIN_AFTER_S)
        else:
            return


def call_of(report: Report) -> dict[str, object]:
    """The call that tells of it: of the message's own pid, under an id that only it has."""
    message = report.message
    named = _IDENTIFIED_BY.get(report.id_type)
    who: dict[str, object] = (
        {named: report.external_id}
        if named
        else {"context": {"traits": {report.id_type: report.external_id}}}
    )
    suffix = "" if report.what == "Email Sent" else ".bounced"
    return {
        "type": "track",
        "event": report.what,
        "messageId": f"{message.id}{suffix}",
        "timestamp": rfc3339(report.at_ms),
        "properties": {"campaign_id": message.campaign_id, "email_id": message.id},
        **who,
    }
