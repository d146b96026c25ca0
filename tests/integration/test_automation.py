"""Does what comes due reach its person through everything that runs, and come back as a count?

The roles as they run: port, lanes, sinks, erasure, automation; a real mail server. In most tests
`journeys.due` is written by the test.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from consumers.messages.journeys_to_messages import message_of_due
from consumers.messages.store import SENDING_FOR_MS, MessageStore
from consumers.rules.times import rfc3339
from headwater.automation import run_automation
from runtime.clock import now_ms
from runtime.segment_log import apply_segments
from runtime.settings import Journey
from runtime.settings_sending import Webhook
from schemas.segments import Segment
from tests.automating import (
    CAMPAIGN,
    automation,
    await_state,
    comes_due,
    messages,
    named,
    sending,
    subscriber,
    suppressed,
)
from tests.automation_worker import POINTS
from tests.erasing import House, house
from tests.hooks import SECRET, receiver
from tests.mailing import Mailbox, due_of, mail_server
from tests.sink_log import running
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with house(
        tmp_path_factory.mktemp("house"),
        f"sending-{now_ms()}",
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        journeys=(Journey(id="left_behind", topic=CAMPAIGN, campaign_id="left"),),
    ) as made:
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Mailbox, int]]:
    with mail_server() as found:
        yield found


def test_a_cart_becomes_a_mail_a_count_and_a_click_that_ends_it(
    home: House, server: tuple[Mailbox, int]
) -> None:
    mailbox, port = server
    user = subscriber(home)
    suppressed_before = suppressed(home, "subscription")
    with home.roles("subjects", "accepted"), automation(sending(home, port)):
        message_id = comes_due(home, user, 1)
        sent = await_state(home, user, message_id, "sent")
        assert [each["state"] for each in sent["decisions"]][-2:] == ["sending", "sent"]
        (mail,) = mailbox.mails
        assert mail["To"] == f"{user}@example.com"

        def is_counted() -> bool:
            return home.campaign(CAMPAIGN).get("sent") == 1

        eventually(is_counted, within_s=60)
        # What a mail program does when somebody presses its button (RFC 8058).
        link = mail["List-Unsubscribe"].strip("<>")
        assert link.startswith(home.http.url)
        field, _, value = mail["List-Unsubscribe-Post"].partition("=")
        answer = httpx.post(link, data={field: value}, timeout=30)
        assert answer.status_code == 200, answer.text
        again = comes_due(home, user, 2)
        refused = await_state(home, user, again, "dropped")
        assert refused["decisions"][-1]["rule"] == "subscription"
        # The same record once more, as after a crash of the lane's reader.
        comes_due(home, user, 1)
        marker = comes_due(home, user, 3)
        await_state(home, user, marker, "dropped")
        assert len(mailbox.mails) == 1 and is_counted()
    assert suppressed(home, "subscription") == suppressed_before + 2


def test_without_a_mail_server_the_outbox_shows_what_would_have_gone(home: House) -> None:
    user = subscriber(home)
    with home.roles("subjects"), automation(sending(home)):
        message_id = comes_due(home, user, 11)
        sent = await_state(home, user, message_id, "sent")
    assert sent["decisions"][-1]["values"] == {"to": "outbox"}
    (mail,) = home.http.get("/v1/outbox", "operator").json()["messages"]
    assert mail["to"] == f"{user}@example.com" and "2499.00 CZK" in mail["text"]
    assert "Kávovar &lt;b&gt;" in mail["html"]
    page = home.http.get("/outbox", None)
    assert (
        page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    )
    rows = home.redis.scan_iter(f"{home.settings.sending.key_prefix}outbox:*")
    stored = b"".join(cast("bytes", home.redis.hget(key, "mail")) for key in rows)
    assert stored and f"{user}@example.com".encode() not in stored


def test_who_is_erased_gets_nothing_that_waited_and_leaves_nothing(
    home: House, server: tuple[Mailbox, int]
) -> None:
    mailbox, port = server
    user = subscriber(home)
    pid = home.pid_of(user)
    before = len(mailbox.mails)
    with home.roles(), automation(sending(home, port)):
        message_id = comes_due(home, user, 21, in_ms=3_600_000)
        await_state(home, user, message_id, "scheduled")
        exported = home.http.get(f"/v1/subjects/user:{user}/export", "privacy_officer").json()
        (told,) = exported["messages"]
        assert told["message_id"] == message_id and told["state"] == "scheduled"
        erasure_id = home.erased(user)
        home.await_status(erasure_id)
    assert home.remaining(erasure_id)["messages"] == 0
    prefix = home.settings.sending.key_prefix
    kept = [key for key in home.redis.scan_iter(f"{prefix}*") if pid.hex().encode() in key]
    assert kept == []
    assert home.redis.zscore(f"{prefix}wake", message_id) is None
    assert len(mailbox.mails) == before


def test_a_webhook_hears_of_changes_of_the_segments_that_name_it(
    home: House, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    with receiver() as hook:
        crm = {"url": hook.url, "secret_file": str(tmp_path / "secret"), "allow_private": True}
        settings = sending(home).model_copy(update={"webhooks": (Webhook(name="crm", **crm),)})
        condition = {"computed": "orders", "at_least": 1}
        apply_segments(
            settings,
            [Segment("buyers", "Buyers", condition, "crm"), Segment("others", "", condition)],
        )
        user = home.someone()
        home.send(home.order(user))
        with automation(settings):
            (body,) = eventually(hook.verified)
        assert body["type"] == "segment.entered"
        pid = home.pid_of(user).hex()
        assert body["data"] == {"pid": pid, "segment_id": "buyers", "version": 1}
    (told,) = messages(home, subject=f"user:{user}")
    assert (told["kind"], told["state"], told["channel"]) == ("segment", "sent", "crm")


def test_killed_while_the_server_had_the_mail_it_is_not_sent_again(
    home: House, server: tuple[Mailbox, int], tmp_path: Path
) -> None:
    mailbox, port = server
    before = len(mailbox.mails)
    user = subscriber(home)
    settings = named(sending(home, port))
    config = tmp_path / "settings.json"
    config.write_text(settings.model_dump_json())
    mailbox.answers.clear()
    command = [sys.executable, "-m", "headwater", "run", "automation", "--config", str(config)]
    with home.roles("subjects"), subprocess.Popen(command) as process:
        try:
            message_id = comes_due(home, user, 31)
            eventually(lambda: len(mailbox.mails) == before + 1)
            process.kill()
        finally:
            process.kill()
            mailbox.answers.set()
    (found,) = messages(home, subject=f"user:{user}")
    assert (found["message_id"], found["state"]) == (message_id, "sending")

    def later() -> int:
        return now_ms() + SENDING_FOR_MS

    member = settings.kafka.instance_id
    with running(lambda of, stop: run_automation(of, stop, later, member=member), settings):
        failed = await_state(home, user, message_id, "failed")
    assert failed["decisions"][-1]["rule"] == "interrupted"
    assert len(mailbox.mails) == before + 1


def test_killed_at_any_step_a_message_goes_once_at_most_and_what_was_being_sent_is_shown_so(
    home: House, server: tuple[Mailbox, int], tmp_path: Path
) -> None:
    mailbox, port = server
    user = subscriber(home)
    settings = named(sending(home, port, most_a_week=9))
    config = tmp_path / "settings.json"
    config.write_text(settings.model_dump_json())
    store = MessageStore.from_settings(settings)

    def mails() -> int:
        return sum(each["To"] == f"{user}@example.com" for each in mailbox.mails)

    def state_of(message_id: str) -> str:
        (found,) = [
            each
            for each in messages(home, subject=f"user:{user}")
            if each["message_id"] == message_id
        ]
        return str(found["state"])

    killed: dict[str, str] = {}
    with home.roles("subjects"):
        for number, (point, state) in enumerate(
            zip(POINTS, ("sending", "sending", "claimed", "scheduled"), strict=True), 51
        ):
            due = due_of(home.pid_of(user), now_ms(), message_id=number.to_bytes(16, "big"))
            killed[point] = due.message_id.hex()
            assert store.schedule([(message_of_due(due), due.due_at_ms)], now_ms(), {}) == 1
            command = [sys.executable, "-m", "tests.automation_worker", str(config), point]
            worker = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, timeout=120, check=False
            )
            assert worker.returncode == -signal.SIGKILL
            assert state_of(killed[point]) == state
            assert mails() == (number > 51)

        def later() -> int:
            return now_ms() + SENDING_FOR_MS

        member = settings.kafka.instance_id
        with running(lambda of, stop: run_automation(of, stop, later, member=member), settings):
            for point in POINTS[:2]:
                failed = await_state(home, user, killed[point], "failed")
                assert failed["decisions"][-1]["rule"] == "interrupted"
            for point in POINTS[2:]:
                await_state(home, user, killed[point], "sent")
    # The one that had gone when its process died, and the two that were not begun then.
    assert mails() == 3
    store.close()


def test_what_somebody_left_in_their_cart_comes_to_them_an_hour_later(
    home: House, server: tuple[Mailbox, int]
) -> None:
    """From the call that put it there to the mail, through all that runs."""
    mailbox, port = server
    user, buyer = subscriber(home), subscriber(home)
    tea = {"product_id": "t1", "name": "Jasmine tea", "price": "4.50", "currency": "EUR"}
    home.send(home.order(buyer))
    left_at = rfc3339(now_ms() - 61 * 60_000)
    cart: dict[str, Any] = {"event": "Product Added", "timestamp": left_at}
    cart["properties"] = tea | {"quantity": 2}
    # The log hears of what she left in her cart after it heard of her order.
    home.send(home.call(buyer, **cart), home.call(user, **cart))

    def mails() -> list[str]:
        return [str(each["To"]) for each in mailbox.mails]

    with home.roles("subjects", "accepted"), automation(sending(home, port)):
        eventually(lambda: f"{user}@example.com" in mails(), within_s=150)

        def is_written_down() -> bool:
            sent = messages(home, subject=f"user:{user}")
            found = [(each["journey_id"], each["state"]) for each in sent]
            assert found == [("left_behind", "sent")]
            return True

        eventually(is_written_down)  # the server has it a moment before we know
        # That she is among the buyers, a segment of another test, may be told besides.
        of_buyer = messages(home, subject=f"user:{buyer}")
        assert [each for each in of_buyer if each["kind"] == "journey"] == []
    (mail,) = [each for each in mailbox.mails if each["To"] == f"{user}@example.com"]
    body = mail.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "Jasmine tea" in text
    assert "9.00" in text
