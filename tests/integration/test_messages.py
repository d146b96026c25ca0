"""Does a message go once, to whom it may, with all that a mail needs, and is each reason kept?"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from consumers.messages import messages_to_people
from consumers.messages.journeys_to_messages import message_of_due
from consumers.messages.messages_to_people import Report, Sender
from consumers.messages.store import CLAIMED_FOR_MS, SENDING_FOR_MS
from consumers.rules.messages import JOURNEY, SEGMENT, Kind, Message
from runtime import kin
from runtime.retry import Stopped
from runtime.sealing import Person
from schemas.carts import ADD, ORDER, REMOVE, SET, CartChange, CartLine
from schemas.errors import StoreUnavailable
from schemas.subjects import Consent
from tests.mailing import (
    NOON_MS,
    YES,
    Killed,
    Mailbox,
    Office,
    bought,
    looked,
    mail_server,
    office,
    smtp_at,
)

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Mailbox, int]]:
    with mail_server() as found:
        yield found


@pytest.fixture
def mailbox(server: tuple[Mailbox, int]) -> Mailbox:
    server[0].__init__()  # type: ignore[misc]
    return server[0]


@pytest.fixture
def post(
    tmp_path: Path,
    redis_url: str,
    redis_client: "redis.Redis",
    fresh_name: Any,
    server: tuple[Mailbox, int],
    mailbox: Mailbox,
) -> Iterator[Office]:
    smtp = smtp_at(server[1], "Obchod <shop@example.com>") | {"answer_within_s": 5}
    consent = {"public_url": "https://shop.example"}
    name = fresh_name("post")
    with office(tmp_path, redis_url, redis_client, name, smtp=smtp, consent=consent) as made:
        yield made


def test_a_mail_has_its_headers_a_subject_in_utf8_and_both_parts(
    post: Office, mailbox: Mailbox
) -> None:
    templates = Path(post.settings.data_dir) / "own"
    templates.mkdir()
    (templates / "cart.subject").write_text(
        "{{ person.first_name }}, košík čeká 🛒 na Tebe, a to už od včerejška\n"
    )
    post.settings = post.settings.model_copy(
        update={
            "sending": post.settings.sending.model_copy(update={"templates_dir": str(templates)})
        }
    )
    person = post.person(traits={"email": "Jana@example.com", "first_name": "Žofie"})
    message = post.schedule(person)
    post.work()
    (mail,) = mailbox.mails
    assert mail["From"] == "Obchod <shop@example.com>"
    assert mail["To"] == "Jana@example.com"
    assert mail["Subject"] == "Žofie, košík čeká 🛒 na Tebe, a to už od včerejška"
    assert mail["Date"].datetime == datetime.fromtimestamp(NOON_MS // 1000, UTC)
    assert mail["Message-ID"] == f"<{message.id}@example.com>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["List-Unsubscribe"].startswith("<https://shop.example/consent/unsubscribe/")
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None and html is not None
    assert mail.get_content_type() == "multipart/alternative"
    assert "2 x Kávovar <b>& mlýnek</b> (red), 2499.00 CZK" in text.get_content()
    assert "Kávovar &lt;b&gt;&amp; mlýnek&lt;/b&gt;" in html.get_content()
    assert "https://shop.example/consent/preferences/" in text.get_content()
    assert post.last(message).state == "sent"
    # What the cart held is not kept beyond that.
    assert post.history(message).message.body == b""
    (report,) = post.told
    assert (report.what, report.message.campaign_id) == ("Email Sent", "cart")


def test_whoever_may_not_be_written_to_is_not_and_the_reason_is_kept(
    post: Office, mailbox: Mailbox
) -> None:
    plain = post.person()
    withdrawn = post.person()
    post.decide(withdrawn, ("purpose/advertising", "withdrawn"), at_ms=2000)
    stranger = post.person()
    post.vault.suppress("email", "gone@example.com", NOON_MS)
    expected = {
        post.schedule(plain, held_out=True): "held_out",
        post.schedule(post.person(decided=YES[:1])): "subscription",
        post.schedule(withdrawn): "purpose",
        post.schedule(post.person(traits={"email": "no address"})): "no_address",
        post.schedule(post.person(traits={"email": "gone@example.com"})): "suppressed",
        post.schedule(post.person(purchases=[bought(NOON_MS - HOUR_MS)])): "purchase_since",
        post.schedule(post.person(cart=[looked(NOON_MS - 1)])): "cart_changed",
        post.schedule(post.person(cart=[looked(NOON_MS - 1, 1)])): "cart_changed",
        post.schedule(stranger, due_at_ms=NOON_MS - 25 * HOUR_MS): "too_late",
        post.schedule(stranger, expires_at_ms=NOON_MS - 1): "too_late",
        post.schedule(stranger, channel="pigeon", topic="cart"): "subscription",
        post.schedule(stranger, template="none"): "template_fault",
    }
    allowed = [
        post.schedule(post.person(purchases=[bought(NOON_MS - HOUR_MS - 1)])),
        post.schedule(post.person(cart=[looked(NOON_MS - 1, 2)])),  # it is as the message says
        post.schedule(post.person(cart=[looked(NOON_MS - HOUR_MS, 1)])),  # and was changed since
    ]
    post.work()
    assert {post.last(message).rule for message in expected} == set(expected.values())
    for message, rule in expected.items():
        assert post.last(message).rule == rule
    assert len(mailbox.mails) == len(allowed)
    assert [post.last(message).state for message in allowed] == ["sent"] * len(allowed)


def test_what_somebody_says_of_themselves_stops_nobody_elses_mail(
    post: Office, mailbox: Mailbox
) -> None:
    """Whoever has the key of a browser may call their address and their zone what they like."""
    fine = "fine@example.com"
    made_up: list[Any] = [
        "a@ [",
        "'@[ \u200d",
        "a@[<]",
        '"\t"@b.cz',
        "a@\0",
        ["a@b.cz"],
        {},
        1 << 60,
    ]
    no_address = [post.schedule(post.person(traits={"email": each})) for each in made_up]
    post.schedule(post.person(traits={"email": fine, "timezone": "a/" * 3000 + "b"}))
    post.schedule(post.person(traits={"email": "other@example.com"}))
    post.work()
    assert [post.last(each).rule for each in no_address] == ["no_address"] * len(no_address)
    assert {mail["To"] for mail in mailbox.mails} == {fine, "other@example.com"}


def test_an_order_that_came_late_and_lies_before_the_last_change_of_the_cart_counts(
    post: Office, mailbox: Mailbox
) -> None:
    """Two of p1 and then p2 were in the cart; by when p1 was ordered, and p2 put there."""
    due = {
        "lines": [*post.due(post.person()).lines, CartLine("p2", "", "", "", "", "", 1, None, "")]
    }

    def waits(*cart: CartChange) -> Message:
        ordered = [bought(each.occurred_at_ms) for each in cart if each.kind == ORDER]
        return post.schedule(post.person(cart=list(cart), purchases=ordered), **due)

    at_ms = NOON_MS - HOUR_MS
    one, two = [CartLine(name, "", "", "", "", "", 1, None, "") for name in ("p1", "p2")]

    def change(minute: int, kind: int, *lines: CartLine) -> CartChange:
        return CartChange(at_ms + minute * 60_000, bytes(8), kind, list(lines))

    stale = [
        waits(change(-5, ORDER), change(0, ADD, two)),
        waits(change(-5, ORDER), change(-4, ADD, one), change(0, ADD, two)),  # two of p1, it says
    ]
    fine = [
        waits(change(-9, ORDER), change(-4, ADD, one), change(-3, ADD, one, two)),
        # Of both it is known what is in it since.
        waits(change(-9, ORDER), change(-8, ADD, one, one, one, two), change(-7, REMOVE, one)),
        waits(change(-2, SET, one, one, two)),
        waits(change(-2, ADD, two)),
    ]
    post.work()
    assert [post.last(each).rule for each in stale] == ["purchase_since"] * len(stale)
    assert post.last(stale[0]).values == {"ordered_at_ms": at_ms - 300_000, "since_ms": at_ms}
    assert [post.last(each).state for each in fine] == ["sent"] * len(fine)


def test_an_erased_person_leaves_nothing_behind_not_even_a_reason(
    post: Office, mailbox: Mailbox
) -> None:
    person = post.person()
    message = post.schedule(person)
    post.vault.suppress("user", "u1", NOON_MS)
    post.work()
    assert mailbox.mails == []
    assert post.store.of_person([person.pid]) == []
    assert post.store.remains_of([person.pid]) == [0]
    assert not list(post.redis.scan_iter(f"{post.settings.sending.key_prefix}*{message.id}"))


@pytest.mark.parametrize("kind", [JOURNEY, SEGMENT])
def test_an_erased_persons_message_from_an_old_copy_of_the_log_is_erased_before_it_is_too_late(
    post: Office, kind: Kind
) -> None:
    person = post.person()
    due = post.due(person, due_at_ms=NOON_MS - 25 * HOUR_MS)
    message = replace(message_of_due(due), kind=kind)
    post.vault.suppress("user", "u1", NOON_MS)
    post.store.schedule([(message, message.due_at_ms)], NOON_MS, {})
    post.work()
    assert post.store.of_person([person.pid]) == []
    assert post.store.remains_of([person.pid]) == [0]
    assert not list(post.redis.scan_iter(f"{post.settings.sending.key_prefix}*{message.id}"))


def test_who_is_erased_leaves_no_message_however_long_it_waited(post: Office) -> None:
    """As when the role was switched off for longer than decisions are kept."""
    person = post.person()
    over, waiting = post.schedule(person), post.schedule(person, due_at_ms=NOON_MS + HOUR_MS)
    post.work()
    kept = f"{post.settings.sending.key_prefix}person:{person.pid.hex()}"
    assert post.redis.pttl(kept) == -1, "forgot whose a message is that waits"
    post.clock.at_ms += (post.settings.sending.keep_days + 1) * 24 * HOUR_MS
    post.schedule(person)
    post.store.forget([person.pid])
    for message in (over, waiting):
        keys = post.redis.scan_iter(f"{post.settings.sending.key_prefix}*{message.id}")
        assert list(keys) == []
    assert post.store.next_wake_ms() is None


def test_whose_a_message_was_is_forgotten_with_the_message(post: Office) -> None:
    person = post.person()
    messages = [post.schedule(person), post.schedule(person, due_at_ms=NOON_MS + HOUR_MS)]
    post.work()
    post.clock.at_ms += 48 * HOUR_MS
    post.work()
    assert [post.last(each).state for each in messages] == ["sent", "dropped"]
    prefix, longest = (
        post.settings.sending.key_prefix,
        post.settings.sending.keep_days * 24 * HOUR_MS,
    )
    left = [post.redis.pexpiretime(f"{prefix}message:{each.id}") for each in messages]
    of_person = post.redis.pexpiretime(f"{prefix}person:{person.pid.hex()}")
    assert min(left) > 0 and max(left) == of_person
    for each in messages:
        post.redis.delete(f"{prefix}message:{each.id}", f"{prefix}decisions:{each.id}")
    post.clock.at_ms += longest
    new = post.schedule(person)
    assert post.redis.zrange(f"{prefix}person:{person.pid.hex()}", 0, -1) == [new.id.encode()]


def test_at_night_a_message_waits_for_the_morning_and_is_asked_of_again(
    post: Office, mailbox: Mailbox
) -> None:
    tokyo = post.person(traits={"email": "t@example.com", "timezone": "Asia/Tokyo"})
    buyer = post.person(traits={"email": "b@example.com", "address": {"country": "JP"}})
    first, second = post.schedule(tokyo), post.schedule(buyer)
    post.work()
    morning_ms = int(datetime(2026, 9, 21, 23, tzinfo=UTC).timestamp() * 1000)
    for message in (first, second):
        held = post.last(message)
        assert (held.state, held.rule, held.until_ms) == ("held", "quiet_hours", morning_ms)
    post.clock.at_ms = morning_ms - 1
    post.work()
    assert mailbox.mails == []
    post.profile(buyer, traits={"email": "b@example.com"}, purchases=[bought(NOON_MS)])
    post.clock.at_ms = morning_ms
    post.work()
    assert [mail["To"] for mail in mailbox.mails] == ["t@example.com"]
    assert post.last(second).rule == "purchase_since"
    states = [each.state for each in post.history(first).decisions]
    assert states == ["scheduled", "held", "sending", "sent"]


@pytest.mark.parametrize("knows", ["desk", "profile"])
def test_who_was_out_while_a_message_waited_may_have_bought_unseen(
    post: Office, mailbox: Mailbox, knows: str
) -> None:
    tokyo = {"email": "t@example.com", "timezone": "Asia/Tokyo"}
    people = {
        matters: post.person(traits=tokyo)
        for matters in ("purpose/analytics", "purpose/personalisation", "purpose/advertising")
    }
    waiting = {on: post.schedule(person) for on, person in people.items()}
    post.work()
    assert {post.last(each).rule for each in waiting.values()} == {"quiet_hours"}
    out_ms, back_ms = NOON_MS + HOUR_MS, NOON_MS + 2 * HOUR_MS
    for on, person in people.items():
        if knows == "desk" or on == "purpose/advertising":
            post.decide(person, (on, "withdrawn"), at_ms=out_ms)
            post.decide(person, (on, "granted"), at_ms=back_ms)
        else:
            # A vault that was put back knows nothing of the night; what lanes applied does.
            consents = [Consent(on, "withdrawn", out_ms, None, out_ms),
                        Consent(on, "granted", back_ms, None, back_ms)]  # fmt: skip
            post.profile(person, traits=tokyo, consents=consents)
    morning_ms = post.last(waiting["purpose/analytics"]).until_ms
    assert morning_ms is not None
    post.clock.at_ms = morning_ms
    post.work()
    found = {on: (post.last(each).state, post.last(each).rule) for on, each in waiting.items()}
    assert found == {
        "purpose/analytics": ("dropped", "consent_interrupted"),
        "purpose/personalisation": ("dropped", "consent_interrupted"),
        # Who only did not want to hear of offers was seen all the while, and does again.
        "purpose/advertising": ("sent", ""),
    }
    assert len(mailbox.mails) == 1


def test_limits_hold_for_messages_that_come_at_once_and_count_by_channel(
    post: Office, mailbox: Mailbox
) -> None:
    person = post.person()
    day = [post.schedule(person) for _ in range(5)]
    post.work()
    assert len(mailbox.mails) == 1
    assert sorted(post.last(each).rule for each in day) == ["", *["day_cap"] * 4]
    for _ in range(3):
        post.clock.at_ms += 24 * HOUR_MS
        post.schedule(person)
        post.work()
    assert len(mailbox.mails) == 3
    (last, *_) = post.store.of_person([person.pid])
    assert last.decisions[-1].rule == "week_cap"
    # The following Monday is another week.
    post.clock.at_ms += 4 * 24 * HOUR_MS
    post.schedule(person)
    post.work()
    assert len(mailbox.mails) == 4


async def _die(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("killed_at", "mails", "state", "rule"),
    [
        ("ask", 1, "sent", ""),
        ("confirm", 1, "sent", ""),
        ("begun", 0, "failed", "interrupted"),
        ("handed", 1, "failed", "interrupted"),
        ("sent", 1, "sent", ""),
        ("told", 1, "sent", ""),
    ],
)
def test_killed_at_any_point_a_message_goes_once_at_most(
    post: Office, mailbox: Mailbox, killed_at: str, mails: int, state: str, rule: str
) -> None:
    message = post.schedule(post.person())

    async def die_at(sender: Any) -> None:
        store, gate = sender._store, sender._gate
        begin, move, told = store.begin, store.move, store.told
        if killed_at in ("ask", "confirm"):
            setattr(gate, killed_at, _die)

        def stop_after(call: Any, *args: Any, **more: Any) -> None:
            call(*args, **more)
            raise Killed

        def stop(*_: object, **__: object) -> None:
            raise Killed

        if killed_at == "begun":
            store.begin = lambda *args, **more: stop_after(begin, *args, **more)
        elif killed_at == "handed":
            store.move = stop
        elif killed_at == "sent":
            store.move = lambda *args, **more: stop_after(move, *args, **more)
        elif killed_at == "told":
            store.told = stop
        try:
            with pytest.raises(Killed):
                await sender.step()
        finally:
            store.begin, store.move, store.told = begin, move, told

    post.work(die_at)
    for _ in range(3):
        post.clock.at_ms += max(CLAIMED_FOR_MS, SENDING_FOR_MS)
        post.work()
    assert len(mailbox.mails) == mails
    last = post.last(message)
    assert (last.state, last.rule) == (state, rule)
    assert post.history(message).message.body == b"", "the cart stayed"
    # Told twice at most, under one id.
    assert {report.message.id for report in post.told} == (
        {message.id} if state == "sent" else set()
    )
    assert post.store.next_wake_ms() is None


@pytest.mark.parametrize("data", ["250 OK", "451 later"])
def test_what_cannot_be_written_down_right_after_it_went_does_not_go_again(
    post: Office, mailbox: Mailbox, data: str
) -> None:
    """The vault's server was away for a moment, and is back for the next question."""
    message = post.schedule(post.person())
    mailbox.on_data = data

    async def away_once(sender: Any) -> None:
        store, move = sender._store, sender._store.move

        def away(*_: Any, **__: Any) -> bool:
            store.move = move
            raise StoreUnavailable("away for a moment")

        store.move = away
        with pytest.raises(StoreUnavailable):
            await sender.step()

    post.work(away_once)
    mailbox.on_data = "250 OK"
    for _ in range(3):
        post.clock.at_ms += SENDING_FOR_MS
        post.work()
    assert mailbox.texts == 1
    assert (post.last(message).state, post.last(message).rule) == ("failed", "interrupted")


@pytest.mark.parametrize("since", ["order", "cart", "night", "erased"])
def test_what_happens_while_the_server_lets_us_wait_is_asked_of_once_more(
    post: Office, mailbox: Mailbox, since: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_to_people, "ASKS_AGAIN_AFTER_S", -1)
    traits = {"email": "a@example.com", "timezone": "Europe/Prague"}
    person = post.person(traits=traits)
    message = post.schedule(person)

    def happens() -> None:
        if since == "order":
            post.profile(person, traits=traits, purchases=[bought(NOON_MS)])
        elif since == "cart":
            post.profile(person, traits=traits, cart=[looked(NOON_MS - 1)])
        elif since == "night":
            post.clock.at_ms += 10 * HOUR_MS
        else:
            post.vault.suppress("user", "u1", NOON_MS)

    async def slowly(sender: Any) -> None:
        opened = sender._channels.opened

        @asynccontextmanager
        async def after_it(channel: str) -> AsyncIterator[Any]:
            async with opened(channel) as hand:
                await asyncio.to_thread(happens)
                yield hand

        sender._channels.opened = after_it
        await sender.step()

    post.work(slowly)
    assert mailbox.mails == []
    if since == "erased":
        assert post.store.of_person([person.pid]) == []
    else:
        rules = {"order": "purchase_since", "cart": "cart_changed", "night": "quiet_hours"}
        assert post.last(message).rule == rules[since]


def test_profiles_that_fall_behind_while_the_server_lets_us_wait_hold_the_message(
    post: Office, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages_to_people, "ASKS_AGAIN_AFTER_S", -1)
    message = post.schedule(post.person())
    answers = iter([None, StoreUnavailable("profiles are behind")])

    def require() -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    async def ask(sender: Any) -> None:
        sender._require_fresh = require
        await sender.step()

    post.work(ask)
    assert post.last(message).rule == "store_unavailable" and mailbox.mails == []
    post.clock.at_ms += HOUR_MS
    post.work()
    assert len(mailbox.mails) == 1


def test_what_the_server_says_decides_whether_it_is_tried_again(
    post: Office, mailbox: Mailbox
) -> None:
    message = post.schedule(post.person())
    mailbox.on_rcpt = "450 busy"
    post.work()
    assert post.last(message).rule == "channel_unavailable"
    post.clock.at_ms += HOUR_MS
    mailbox.on_rcpt = "250 OK"
    post.work()
    assert len(mailbox.mails) == 1 and post.last(message).state == "sent"

    # Refused for good: no more mails to that address, and it counted for nothing.
    person = post.person()
    mailbox.on_rcpt = "550 no such user"
    refused = post.schedule(person)
    post.work()
    assert (post.last(refused).state, post.last(refused).rule) == ("failed", "refused_by_channel")
    assert post.last(refused).values == {"code": 550}
    assert post.told[-1].what == "Email Bounced"
    mailbox.on_rcpt = "250 OK"
    again = post.schedule(person)
    post.work()
    assert post.last(again).rule == "suppressed"

    # The server took the text and did not answer: it may have delivered it.
    mailbox.cut_at_data = True
    doubtful = post.schedule(post.person())
    post.work()
    assert len(mailbox.mails) == 2
    assert (post.last(doubtful).state, post.last(doubtful).rule) == ("failed", "interrupted")


@pytest.mark.parametrize("answer", ["251 taken, in our way", "299 fine", "354 go on"])
def test_an_answer_to_the_text_that_is_no_refusal_is_no_reason_to_send_it_again(
    post: Office, mailbox: Mailbox, answer: str
) -> None:
    mailbox.on_data = answer
    message = post.schedule(post.person())
    for _ in range(3):
        post.work()
        post.clock.at_ms += HOUR_MS
    assert mailbox.texts == 1
    assert post.last(message).rule == "interrupted"


@pytest.mark.parametrize(
    ("answer", "is_nobody"),
    [
        ("550 no such user", True),
        ("551 not here", True),
        ("550 5.1.1 no such user", True),
        ("553 5.1.3 bad address", True),
        ("550 5.2.1 mailbox disabled", True),
        # Each speaks of our server or of today, and would be said of everybody.
        ("550 5.7.1 relaying denied", False),
        ("550-5.7.26 unauthenticated\r\n550 5.7.26 mail", False),
        ("553 sorry, that domain is not in my list (#5.7.1)", False),
        ("554 relay access denied", False),
        ("550 5.1.8 sender's domain unknown", False),
        ("552 5.2.2 mailbox full", False),
        ("530 authentication required", False),
    ],
)
def test_only_a_server_that_knows_nobody_there_is_believed_for_good(
    post: Office, mailbox: Mailbox, answer: str, is_nobody: bool
) -> None:
    person = post.person()
    refused = post.schedule(person)
    mailbox.on_rcpt = answer
    post.work()
    assert post.last(refused).rule == "refused_by_channel"
    mailbox.on_rcpt = "250 OK"
    again = post.schedule(person)
    post.work()
    assert post.last(again).rule == ("suppressed" if is_nobody else "")


def test_who_has_another_address_gets_mail_there(post: Office, mailbox: Mailbox) -> None:
    person = post.person(traits={"email": "Old@example.com"})
    post.schedule(person)
    mailbox.on_rcpt = "550 no such user"
    post.work()
    mailbox.on_rcpt = "250 OK"
    post.profile(person, traits={"email": "new@example.com"})
    moved = post.schedule(person)
    post.work()
    assert post.last(moved).state == "sent" and mailbox.mails[0]["To"] == "new@example.com"
    post.profile(person, traits={"email": "old@Example.com"})
    post.clock.at_ms += 24 * HOUR_MS
    back = post.schedule(person)
    post.work()
    assert post.last(back).rule == "suppressed"


@pytest.mark.parametrize("erased", ["jana@příklad.cz", "jana@xn--pklad-zsa96e.cz"])
def test_an_erased_address_gets_no_mail_however_its_domain_is_written(
    post: Office, mailbox: Mailbox, erased: str
) -> None:
    post.vault.suppress("email", erased, NOON_MS)
    message = post.schedule(post.person(traits={"email": "Jana@Příklad.cz"}))
    post.work()
    assert post.last(message).rule == "suppressed" and mailbox.mails == []


def test_a_mail_is_in_ascii_whatever_is_in_the_cart(post: Office, mailbox: Mailbox) -> None:
    line = CartLine(
        "p", "", "Kávovar \x00\r\nBcc: a@b.cz\r\n.\r\nRSET " + "ž" * 2000, "", "", "", 1, None, ""
    )
    post.schedule(post.person(), lines=[line])
    post.work()
    (mail,) = mailbox.mails
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None and html is not None and mail["Bcc"] is None
    assert "ž" * 2000 in text.get_content() and "ž" * 2000 in html.get_content()
    assert max(mailbox.raw[0]) < 128 and 0 not in mailbox.raw[0]
    assert all(len(each) <= 998 for each in mailbox.raw[0].split(b"\r\n"))


def test_without_its_stores_nothing_is_sent_and_it_is_tried_again(
    post: Office, mailbox: Mailbox
) -> None:
    message = post.schedule(post.person())

    async def unavailable(*_: object) -> None:
        raise StoreUnavailable("away")

    async def without(sender: Any) -> None:
        sender._gate._gate._overlay.read_to_send = unavailable
        await sender.step()

    post.work(without)
    held = post.last(message)
    assert (held.state, held.rule, held.until_ms) == ("held", "store_unavailable", NOON_MS + 5000)
    assert mailbox.mails == []
    post.clock.at_ms += 5000
    post.work()
    assert len(mailbox.mails) == 1


def test_what_was_asked_about_when_the_role_was_stopped_is_the_next_ones(
    post: Office, mailbox: Mailbox
) -> None:
    message = post.schedule(post.person())

    def stopped() -> None:
        raise Stopped

    async def ask(sender: Any) -> None:
        sender._require_fresh = stopped
        with pytest.raises(Stopped):
            await sender.run(threading.Event())

    post.work(ask)
    assert post.last(message).state == "scheduled" and mailbox.mails == []
    post.clock.at_ms += CLAIMED_FOR_MS
    post.work()
    assert post.last(message).state == "sent" and len(mailbox.mails) == 1


def test_what_was_not_told_is_told_later_under_the_same_id(post: Office, mailbox: Mailbox) -> None:
    message = post.schedule(post.person())

    async def away(_: Report) -> None:
        raise StoreUnavailable("Kafka is away")

    post.work(tell=away)
    assert post.told == [] and len(mailbox.mails) == 1
    post.clock.at_ms += HOUR_MS
    post.work()
    assert [(report.what, report.message.id) for report in post.told] == [
        ("Email Sent", message.id)
    ]
    post.clock.at_ms += HOUR_MS
    post.work()
    assert len(post.told) == 1 and len(mailbox.mails) == 1


def test_two_processes_share_messages_out_and_send_none_twice(
    post: Office, mailbox: Mailbox
) -> None:
    messages = [post.schedule(post.person()) for _ in range(12)]

    async def both(sender: Sender) -> None:
        other = Sender(
            post.store, sender._gate, sender._channels, sender._tell, post.clock, owner="other"
        )
        while any(await asyncio.gather(sender.step(), other.step())):
            pass

    post.work(both)
    assert len({mail["To"] for mail in mailbox.mails}) == len(mailbox.mails) == len(messages)


def test_a_person_too_large_to_ask_about_stops_nobody_else_s_message(
    post: Office, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kin, "MOST_PIDS", 2)
    large, plain = post.person(), post.person()
    for other in (post.person(), post.person()):
        post.claim(other, large)
    held, sent = post.schedule(large), post.schedule(plain)
    post.work()
    assert post.last(sent).state == "sent" and len(mailbox.mails) == 1
    assert (post.last(held).state, post.last(held).rule) == ("held", "store_unavailable")
    assert "--revoke" in str(post.last(held).values)


def test_a_person_is_all_of_their_identifiers_address_purchases_limits_and_refusals(
    post: Office, mailbox: Mailbox
) -> None:
    people = [post.person(traits={"vip": True}) for _ in range(4)]
    addresses = []
    for number, person in enumerate(people):
        (address,) = post.vault.resolve([("email", f"known{number}@example.com")])
        assert isinstance(address, Person)
        post.decide(address, *YES)
        post.claim(address, person)
        addresses.append(address)
    first, second = post.schedule(people[0]), post.schedule(people[1])
    post.profile(addresses[1], traits={}, purchases=[bought(NOON_MS)])
    post.decide(addresses[2], ("email/cart", "unsubscribed"), at_ms=2000)
    third = post.schedule(people[2])
    # To the same person under the other identifier, a minute ago.
    post.profile(addresses[3], traits={})
    fourth = post.schedule(addresses[3])
    post.work()
    assert {mail["To"] for mail in mailbox.mails} == {"known0@example.com", "known3@example.com"}
    assert post.last(first).state == post.last(fourth).state == "sent"
    assert post.last(second).rule == "purchase_since"
    assert post.last(third).rule == "subscription"
    fifth = post.schedule(people[3])
    post.work()
    assert post.last(fifth).rule == "day_cap"
