"""Is a person left alone from the moment in which the API confirms that they withdrew?

Events are posted and messages are due all the while. What counts is told by the stamps on the log,
by a rule of two lines; what was sent, by the senders' own clock.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import pytest

from consumers.rules.times import rfc3339
from runtime.clock import now_ms
from schemas.codec import COLLECTED
from schemas.partitioning import partition_of
from tests.collecting import TopicReader
from tests.erasing import House, house
from tests.integration import serving
from tests.integration.serving import KEYS
from tests.waiting import eventually

EVENTS = 1000
POSTERS = 4
EVENTS_A_POST = 10
SENDERS = 5
SENDS_EACH = 20
NEWSLETTER = {"channel": "email", "topic": "newsletter"}
ADVERTISING = {"purpose": "advertising"}


@pytest.fixture(scope="module")
def home(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with house(
        tmp_path_factory.mktemp("house"),
        f"racing-{now_ms()}",
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
    ) as made:
        yield made


def post(home: House, path: str, body: object, role: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEYS[role]}"}
    return httpx.post(f"{home.http.url}{path}", json=body, headers=headers, timeout=30)


def decide(home: House, user: str, matter: dict[str, str], status: str) -> dict[str, Any]:
    """The decision is in force; what was answered."""
    proof = {"method": "form", "text_version": "2026-01"}
    told = {"source": "preference-form", "proof": proof}
    body = {"subject": f"user:{user}", "status": status, **matter, **told}
    answer = post(home, "/v1/consents", body, "consent_desk")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ask(home: House, user: str, role: str = "activation", **message: str) -> httpx.Response:
    body = {"subject": f"user:{user}", **NEWSLETTER, **message}
    return post(home, "/v1/sends/permissions", body, role)


def subscriber(home: House) -> str:
    """Somebody who allowed everything."""
    user = home.someone()
    for purpose in ("analytics", "personalisation", "advertising"):
        decide(home, user, {"purpose": purpose}, "granted")
    decide(home, user, NEWSLETTER, "subscribed")
    return user


@dataclass
class Mailer:
    """Sends due messages as its contract says: asks right before each, begins in time or not."""

    home: House
    user: str
    withdrawn: threading.Event
    began_s: list[float] = field(default_factory=list)
    refused_by: list[str] = field(default_factory=list)
    held: list[float] = field(default_factory=list)

    def send(self, *, dawdle_s: float = 0) -> None:
        """One message; with `dawdle_s` it begins so late, or as soon as the withdrawal is known."""
        asked_s = time.monotonic()
        answer = ask(self.home, self.user)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        if not told["allowed"]:
            self.refused_by.append(told["refused_by"])
            return
        if dawdle_s:
            self.withdrawn.wait(dawdle_s)
        now_s = time.monotonic()
        if now_s - asked_s < told["send_within_ms"] / 1000:
            self.began_s.append(now_s)
        else:
            self.held.append(now_s)


def test_nothing_counts_shows_or_goes_out_once_the_withdrawal_is_confirmed(home: House) -> None:
    user, chance = subscriber(home), random.Random(4)
    home.send(home.call(user, "identify", traits={"name": "Ada"}))
    withdrawn, begin = threading.Event(), threading.Semaphore(0)
    mailer = Mailer(home, user, withdrawn)
    offsets_ms = [chance.randrange(-30_000, 30_000) for _ in range(EVENTS)]

    def post_events(mine: list[int]) -> None:
        for first in range(0, len(mine), EVENTS_A_POST):
            some = mine[first : first + EVENTS_A_POST]
            home.send(
                *(
                    home.opened(user, "race") | {"timestamp": rfc3339(now_ms() + offset_ms)}
                    for offset_ms in some
                )
            )
            begin.release()

    def send_due(number: int) -> None:
        for nth in range(SENDS_EACH):
            if nth == SENDS_EACH // 2:
                assert withdrawn.wait(60)
            mailer.send(dawdle_s=0.5 if nth % 5 == number else 0)

    def withdraw() -> tuple[dict[str, Any], float, int]:
        for _ in range(EVENTS // EVENTS_A_POST // 3):
            assert begin.acquire(timeout=60)
        with ThreadPoolExecutor(3) as desks:
            others = [
                desks.submit(decide, home, user, matter, status)
                for matter, status in (
                    (NEWSLETTER, "unsubscribed"),
                    ({"purpose": "personalisation"}, "withdrawn"),
                )
            ]
            analytics = decide(home, user, {"purpose": "analytics"}, "withdrawn")
            for other in others:
                other.result()
        at_s = time.monotonic()
        withdrawn.set()
        shown = home.http.get(f"/v1/profiles/user:{user}", "activation").status_code
        return analytics, at_s, shown

    with home.roles("subjects", "accepted"):
        profile = f"/v1/profiles/user:{user}"
        eventually(lambda: home.http.get(profile, "activation").status_code == 200)
        with ThreadPoolExecutor(POSTERS + SENDERS + 1) as everybody:
            running = [
                everybody.submit(post_events, offsets_ms[number::POSTERS])
                for number in range(POSTERS)
            ]
            running += [everybody.submit(send_due, number) for number in range(SENDERS)]
            withdrawing = everybody.submit(withdraw)
            for each in running:
                each.result()
            withdrawal, withdrawn_s, shown = withdrawing.result()
        await_applied(home, user)
        opened = home.campaign("race").get("opened", 0)

    from_ms, recorded_ms = (moment_ms(withdrawal[name]) for name in ("valid_from", "recorded_at"))
    stamps = stamps_of(home, user)
    allowed = [
        occurred_ms
        for occurred_ms, received_ms in stamps
        if occurred_ms < from_ms and received_ms < recorded_ms
    ]
    assert len(stamps) == EVENTS
    assert opened == len(allowed)
    assert any(
        occurred_ms >= from_ms and received_ms < recorded_ms for occurred_ms, received_ms in stamps
    ), "no event that came in time was taken back"
    assert 0 < len(allowed) < EVENTS, "the withdrawal met no event under way"
    assert counted_from(home, user, from_ms) == 0
    assert shown == 403

    assert len(mailer.began_s) + len(mailer.refused_by) + len(mailer.held) == SENDERS * SENDS_EACH
    assert mailer.began_s, "no message went out before the withdrawal"
    assert [late_s for late_s in mailer.began_s if late_s >= withdrawn_s] == []
    assert len(mailer.refused_by) >= SENDERS * SENDS_EACH // 2
    assert set(mailer.refused_by) == {"subscription"}


@pytest.mark.parametrize(
    ("matter", "status", "rule"),
    [
        (ADVERTISING, "withdrawn", "purpose"),
        (NEWSLETTER, "unsubscribed", "subscription"),
        ({"channel": "email", "topic": "all"}, "unsubscribed", "subscription"),
    ],
)
def test_a_sender_who_dawdles_begins_before_the_withdrawal_is_confirmed_or_not_at_all(
    home: House, matter: dict[str, str], status: str, rule: str
) -> None:
    mailer = Mailer(home, subscriber(home), threading.Event())
    with ThreadPoolExecutor(1) as other:
        sending = other.submit(mailer.send, dawdle_s=0.5)
        key = f"{home.settings.vault.key_prefix}sending:{home.pid_of(mailer.user).hex()}"

        def is_under_way() -> bool:
            """A permission is seen for a second only: who missed it, on a busy machine, has the
            sender ask for another message."""
            nonlocal sending
            is_over = sending.done()
            if home.redis.exists(key):
                return True
            if is_over:
                sending = other.submit(mailer.send, dawdle_s=0.5)
            return False

        eventually(is_under_way, every_s=0.02)
        decide(home, mailer.user, matter, status)
        withdrawn_s = time.monotonic()
        mailer.withdrawn.set()
        sending.result()
    assert mailer.refused_by == []
    assert all(began_s < withdrawn_s for began_s in mailer.began_s)
    assert mailer.began_s or mailer.held
    mailer.send()
    assert mailer.refused_by == [rule]


def test_a_message_may_go_only_where_everything_says_so(home: House) -> None:
    user = subscriber(home)
    told = ask(home, user).json()
    assert told == {"allowed": True, "refused_by": None, "send_within_ms": 1000}
    assert ask(home, user, topic="offers").json()["refused_by"] == "subscription"
    assert ask(home, user, channel="sms").json()["refused_by"] == "subscription"
    nobody = {"allowed": False, "refused_by": "unknown_person", "send_within_ms": 0}
    assert ask(home, "nobody").json() == nobody
    home.erased(user)
    assert ask(home, user).json() == nobody
    assert ask(home, user, role="viewer").status_code == 403
    for wrong, path in (
        ({"topic": "all"}, "$.topic"),
        ({"channel": "purpose"}, "$.channel"),
        ({"subject": "42"}, "$.subject"),
    ):
        answer = ask(home, user, **wrong)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"] == path


@pytest.mark.parametrize("away", ["redis", "vault"])
def test_no_message_may_go_while_that_cannot_be_told(home: House, away: str) -> None:
    user = subscriber(home)
    chosen = home.settings
    changes: dict[str, Any] = {
        "redis": {"redis": chosen.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})},
        "vault": {"vault": chosen.vault.model_copy(update={"url": "redis://127.0.0.1:1/0"})},
    }
    with serving.serving(chosen.model_copy(update=changes[away]), ("api",)) as port:
        headers = {"Authorization": f"Bearer {KEYS['activation']}"}
        body = {"subject": f"user:{user}", **NEWSLETTER}
        path = f"{port.url}/v1/sends/permissions"
        assert httpx.post(path, json=body, headers=headers, timeout=30).status_code == 503


def await_applied(home: House, user: str) -> None:
    """What was on the log of the person's lane is counted: somebody else's event behind it is."""
    partitions = home.settings.kafka.partitions
    where: Callable[[str], int] = lambda who: partition_of(home.pid_of(who), partitions)  # noqa: E731
    wanted, marker = where(user), ""
    while not marker or where(marker) != wanted:
        marker = home.someone()
        home.send(home.order(marker, "nothing"))
    orders = home.someone()
    home.send(home.order(marker, orders))
    eventually(lambda: home.campaign(orders).get("orders") == 1, within_s=60)


def moment_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def stamps_of(home: House, user: str) -> list[tuple[int, int]]:
    """(occurred at, received at) of every mail that the person opened, as the log has them."""
    pid = home.pid_of(user)
    reader = TopicReader(home.settings, home.settings.topic_names.collected)
    try:
        events = [COLLECTED.decode(value) for key, value in reader.read() if key == pid]
    finally:
        reader.close()
    return [
        (event.occurred_at_ms, event.received_at_ms)
        for event in events
        if event.event == "Email Opened"
    ]


def counted_from(home: House, user: str, from_ms: int) -> int:
    """Facts of the person that happened from then on and count."""
    sql = (
        f"SELECT count() FROM facts FINAL WHERE pid = unhex('{home.pid_of(user).hex()}') "
        f"AND metric != '' AND retracted_next_off = 0 AND campaign_id = 'race' "
        f"AND toUnixTimestamp64Milli(occurred_at) >= {from_ms}"
    )
    return int(home.clickhouse.query(sql).result_rows[0][0])
