"""The role `automation` in a whole Headwater: its settings, who is written to, what became of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from headwater.automation import run_automation
from runtime.clock import now_ms
from runtime.settings import Settings
from schemas.codec import JOURNEY_DUE
from schemas.topics import PARTITIONER
from tests.erasing import House
from tests.integration.serving import KEYS
from tests.mailing import due_of, smtp_at
from tests.sink_log import running
from tests.waiting import eventually

CAMPAIGN = "cart"
NAME = "one"
"""Of the role's only process."""
PROOF = {"method": "form", "text_version": "2026-01"}


def sending(home: House, port: int | None = None, **changes: Any) -> Settings:
    """Settings of the role: with a mail server or not, at any hour."""
    values = home.settings.model_dump()
    values["consent"]["public_url"] = home.http.url
    values["sending"] |= {"quiet_from": "00:00", "quiet_to": "00:00", "most_a_day": 5} | changes
    if port is not None:
        values["smtp"] |= smtp_at(port)
    return Settings.model_validate(values)


def named(settings: Settings) -> Settings:
    """Those of a process that keeps its name: the next one has its partitions at once, and in trial
    mode has them at all (docs/trial-mode.md)."""
    kafka = settings.kafka.model_copy(update={"instance_id": NAME})
    return settings.model_copy(update={"kafka": kafka})


@contextmanager
def automation(settings: Settings) -> Iterator[None]:
    with running(lambda of, stop: run_automation(of, stop, member=NAME), settings):
        yield


def subscriber(home: House) -> str:
    """Somebody with an address who wants to hear of their cart."""
    user = home.someone()
    home.send(home.call(user, "identify", traits={"email": f"{user}@example.com"}))
    for body in (
        {"purpose": "advertising", "status": "granted"},
        {"channel": "email", "topic": CAMPAIGN, "status": "subscribed"},
    ):
        told = {"subject": f"user:{user}", "source": "form", "proof": PROOF}
        headers = {"Authorization": f"Bearer {KEYS['consent_desk']}"}
        answer = httpx.post(
            f"{home.http.url}/v1/consents", json=told | body, headers=headers, timeout=30
        )
        assert answer.status_code == 200, answer.text
    return user


def comes_due(home: House, user: str, number: int, in_ms: int = 0) -> str:
    """A message about a cart of this user is on the log; its id."""
    message_id = number.to_bytes(16, "big")
    due = due_of(home.pid_of(user), now_ms() + in_ms, message_id=message_id)
    producer = Producer(
        {"bootstrap.servers": home.settings.kafka.bootstrap_servers, "partitioner": PARTITIONER}
    )
    producer.produce(home.settings.topic_names.journeys, JOURNEY_DUE.encode(due), due.pid)
    assert producer.flush(30) == 0
    return message_id.hex()


def messages(home: House, **query: Any) -> list[dict[str, Any]]:
    answer = home.http.get("/v1/messages", "operator", **query)
    assert answer.status_code == 200, answer.text
    assert "example.com" not in answer.text
    return list(answer.json()["messages"])


def await_state(home: House, user: str, message_id: str, state: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        for each in messages(home, subject=f"user:{user}"):
            if each["message_id"] == message_id:
                assert each["state"] == state, each
                return each
        return None

    return eventually(found)


def suppressed(home: House, rule: str) -> float:
    """How many messages this process has let nobody have by that rule, whoever's they were."""
    wanted = ("headwater_messages_suppressed_total", {"reason": rule})
    families = text_string_to_metric_families(home.http.get("/metrics", "operator").text)
    samples = (sample for family in families for sample in family.samples)
    found = (each.value for each in samples if (each.name, each.labels) == wanted)
    return next(found, 0.0)
