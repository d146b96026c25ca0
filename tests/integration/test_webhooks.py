"""Does a receiver know who calls and what it had already, and is nobody of our own network called?"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from consumers.messages.store import SENDING_FOR_MS
from consumers.rules.messages import Message
from consumers.rules.segment_calls import call_of
from runtime.clock import now_ms
from runtime.settings_sending import Webhook
from runtime.webhooks import Answered, Caller, is_public, secret_of
from schemas.errors import SettingInvalid
from tests.hooks import SECRET, Hook, receiver
from tests.mailing import Killed, Office, office

HOUR_MS = 3_600_000


@pytest.fixture
def hook() -> Iterator[Hook]:
    with receiver() as found:
        yield found


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    (tmp_path / "secret").write_text(SECRET + "\n")
    return str(tmp_path / "secret")


def call(chosen: Webhook, body: bytes = b'{"a":"\xc5\xa1"}') -> Answered:
    async def once() -> Answered:
        caller = Caller(chosen)
        try:
            return await caller.call("msg_1", body, now_ms())
        finally:
            await caller.close()

    return asyncio.run(once())


def test_a_call_is_signed_so_that_the_receivers_library_knows_it(
    hook: Hook, secret_file: str
) -> None:
    chosen = Webhook(name="h", url=hook.url, secret_file=secret_file, allow_private=True)
    assert call(chosen).is_taken
    assert hook.verified() == [{"a": "š"}]
    headers, body = hook.got[0]
    assert {name.lower(): value for name, value in headers.items()}["webhook-id"] == "msg_1"
    with pytest.raises(WebhookVerificationError):
        Receiver(SECRET).verify(body + b" ", headers)
    # A redirect may lead anywhere: it is an answer, and not followed.
    hook.says = 302
    assert call(chosen) == Answered(302, "status_302")
    assert len(hook.got) == 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1"],
)
def test_an_address_of_our_own_network_is_not_called_by_whatever_name(
    hook: Hook, secret_file: str, host: str
) -> None:
    url = hook.url.replace("127.0.0.1", host)
    answer = call(Webhook(name="h", url=url, secret_file=secret_file))
    # 127.1 is an address to some and no name to others: to our client it is neither.
    expected = "no_answer" if host == "127.1" else "private_address"
    assert (answer.status, answer.why) == (0, expected)
    assert hook.got == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("ff02::1", False),
        ("fec0::1", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, expected: bool) -> None:
    assert is_public(address) == expected


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_abc", "not base64!", SECRET[:20]])
def test_a_secret_that_is_none_stops_the_start_and_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "s").write_text(text)
    chosen = Webhook(name="crm", url="https://a.example", secret_file=str(tmp_path / "s"))
    with pytest.raises(SettingInvalid, match="crm: secret_file") as found:
        secret_of(chosen)
    assert len(text) < 7 or text not in str(found.value)


# -- through the state machine


@pytest.fixture
def post(
    tmp_path: Path,
    redis_url: str,
    redis_client: "redis.Redis",
    fresh_name: Any,
    hook: Hook,
    secret_file: str,
) -> Iterator[Office]:
    crm = {"name": "crm", "url": hook.url, "secret_file": secret_file, "allow_private": True}
    name = fresh_name("hooks")
    with office(tmp_path, redis_url, redis_client, name, webhooks=(crm,)) as made:
        # Signatures are checked against the real time, which may be at night.
        made.clock.at_ms = now_ms()
        yield made


def change(post: Office, pid: bytes, *, has_entered: bool = True, number: int = 7) -> Message:
    made = call_of(
        pid,
        "vip",
        3,
        has_entered=has_entered,
        at_ms=post.clock(),
        place=f"segments.changed:1:0:{number}",
        to="crm",
    )
    post.store.schedule([(made, made.due_at_ms)], post.clock(), {})
    return made


def test_a_change_of_a_segment_is_told_with_a_pseudonym_and_nothing_else_of_the_person(
    post: Office, hook: Hook
) -> None:
    person = post.person(decided=())
    message = change(post, person.pid)
    post.work()
    assert post.last(message).state == "sent"
    (body,) = hook.verified()
    assert body["type"] == "segment.entered"
    assert body["data"] == {"pid": person.pid.hex(), "segment_id": "vip", "version": 3}
    # The same record, read again after a crash.
    assert change(post, person.pid).id == message.id
    post.work()
    assert len(hook.got) == 1


def test_a_receiver_that_is_away_is_tried_again_with_the_same_id_less_and_less_often(
    post: Office, hook: Hook
) -> None:
    message = change(post, post.person(decided=()).pid, has_entered=False)
    hook.says = 503
    pauses = []
    for _ in range(4):
        post.work()
        held = post.last(message)
        assert (held.state, held.rule) == ("held", "channel_unavailable")
        assert held.values == {"webhook": "crm", "answer": "status_503"}
        assert held.until_ms is not None
        pauses.append(held.until_ms - post.clock())
        post.clock.at_ms = held.until_ms
    assert pauses == [5000, 10_000, 20_000, 40_000]
    hook.says = 204
    post.work()
    assert post.last(message).state == "sent"
    ids = {{k.lower(): v for k, v in headers.items()}["webhook-id"] for headers, _ in hook.got}
    assert ids == {message.id} and len(hook.got) == 5
    hook.says = 410
    refused = change(post, post.person(decided=()).pid, number=8)
    post.work()
    assert (post.last(refused).state, post.last(refused).rule) == ("failed", "refused_by_channel")


def test_a_call_that_a_crash_interrupted_is_made_again_under_the_same_id(
    post: Office, hook: Hook
) -> None:
    message = change(post, post.person(decided=()).pid)

    async def die(sender: Any) -> None:
        move = sender._store.move

        def stop(*_: object, **__: object) -> None:
            raise Killed

        sender._store.move = stop
        try:
            with pytest.raises(Killed):
                await sender.step()
        finally:
            sender._store.move = move

    post.work(die)
    assert len(hook.got) == 1
    post.clock.at_ms += SENDING_FOR_MS
    post.work()
    assert post.last(message).state == "sent"
    assert len({body for _, body in hook.got}) == 1 and len(hook.got) == 2


def test_a_message_of_a_journey_goes_to_the_webhook_that_its_channel_names(
    post: Office, hook: Hook
) -> None:
    person = post.person(decided=(("purpose/advertising", "granted"), ("crm/cart", "subscribed")))
    # Where it is noon now: signs of these zones are the other way round.
    ahead = 12 - post.clock() // HOUR_MS % 24
    post.profile(person, traits={"timezone": f"Etc/GMT{-ahead:+d}"})
    message = post.schedule(person, channel="crm")
    post.work()
    assert post.last(message).state == "sent", post.last(message)
    (body,) = hook.verified()
    assert body["data"]["subject"] == "user:u1"
    assert body["data"]["cart"]["totals"] == [{"amount": "2499.00", "currency": "CZK"}]
    assert orjson.dumps(body).count(b"unsubscribe/") == 1
