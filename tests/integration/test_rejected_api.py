"""What was set aside, read from the end of a real topic."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from runtime.log_ends import log_ends
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import REJECTED
from schemas.events import Rejected
from tests.integration.serving import Served, at, serving, settings_of
from tests.waiting import eventually

START_MS = at("2026-01-01T09:00:00Z")


@pytest.fixture
def settings(tmp_path: Path, kafka: str, fresh_name: Any) -> Settings:
    return settings_of(tmp_path, kafka=kafka, name=fresh_name("rejected"))


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    ensure_topics(settings)
    with serving(settings) as port:
        yield port


def rejected(number: int, **changes: Any) -> Rejected:
    fields: dict[str, Any] = {
        "stage": "streams",
        "topic": "events.collected",
        "partition": 1,
        "offset": number,
        "source": None,
        "message_id": None,
        "path": "$.properties.total",
        "reason": "wrong_type",
        "expected": "a number",
        "rejected_at_ms": START_MS + number,
    }
    return Rejected(**(fields | changes))


def produce(settings: Settings, *transactions: list[Rejected], abort_last: bool = False) -> None:
    topic = settings.topic_names.rejected
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "transactional.id": f"{settings.kafka.topic_prefix}test",
        }
    )
    producer.init_transactions(30)
    for at_index, records in enumerate(transactions):
        producer.begin_transaction()
        for record in records:
            partition = record.rejected_at_ms % settings.kafka.partitions
            producer.produce(topic, REJECTED.encode(record), partition=partition)
        if abort_last and at_index == len(transactions) - 1:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    await_readable(settings)


def await_readable(settings: Settings) -> None:
    """Nothing before the topic's end belongs to an open transaction.

    A commit returns before its markers are written: until then the end of committed records, where
    the API begins, lies before what was just committed.
    """
    kafka, topic = settings.kafka, settings.topic_names.rejected
    committed = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic})

    def is_readable() -> bool:
        ends = log_ends(kafka.bootstrap_servers, topic, kafka.partitions)
        return ends == {
            p: committed.get_watermark_offsets(TopicPartition(topic, p), 15) for p in ends
        }

    try:
        eventually(is_readable)
    finally:
        committed.close()


def offsets(served: Served, **query: str | float) -> list[int]:
    answer = served.get("/v1/events/rejected", "operator", **query)
    assert answer.status_code == 200, answer.text
    return [record["offset"] for record in answer.json()["rejected"]]


def test_nothing_set_aside_is_an_empty_list(served: Served) -> None:
    assert offsets(served) == []


def test_each_record_points_at_its_event_and_says_why(served: Served) -> None:
    collector = rejected(
        1,
        stage="collector",
        topic=None,
        partition=None,
        offset=None,
        source="shop",
        message_id="m1",
    )
    produce(served.settings, [rejected(0), collector])
    answer = served.get("/v1/events/rejected", "operator").json()
    assert answer["rejected"] == [
        {
            "stage": "collector",
            "reason": "wrong_type",
            "path": "$.properties.total",
            "expected": "a number",
            "topic": None,
            "partition": None,
            "offset": None,
            "source": "shop",
            "message_id": "m1",
            "rejected_at": "2026-01-01T09:00:00.001Z",
        },
        {
            "stage": "streams",
            "reason": "wrong_type",
            "path": "$.properties.total",
            "expected": "a number",
            "topic": "events.collected",
            "partition": 1,
            "offset": 0,
            "source": None,
            "message_id": None,
            "rejected_at": "2026-01-01T09:00:00.000Z",
        },
    ]


def test_newest_come_first_and_no_more_than_asked_for(served: Served) -> None:
    produce(served.settings, [rejected(n) for n in range(250)])
    assert offsets(served) == list(range(249, 149, -1))
    assert offsets(served, limit=3) == [249, 248, 247]
    assert offsets(served, limit=1000) == list(range(249, -1, -1))


def test_transaction_markers_in_between_hide_no_record(served: Served) -> None:
    produce(served.settings, *([rejected(n)] for n in range(30)))
    assert offsets(served, limit=25) == list(range(29, 4, -1))


def test_what_was_never_committed_is_not_shown(served: Served) -> None:
    produce(served.settings, [rejected(0)], [rejected(1)], abort_last=True)
    assert offsets(served) == [0]


def test_records_of_others_are_left_out(served: Served) -> None:
    produce(served.settings, [rejected(0)])
    producer = Producer({"bootstrap.servers": served.settings.kafka.bootstrap_servers})
    for value in (b"", b"{}", None, b"\x00\x00\x00\x00\x63"):
        producer.produce(served.settings.topic_names.rejected, value)
    assert producer.flush(30) == 0
    assert offsets(served) == [0]


def test_before_the_topics_exist_the_answer_is_503(settings: Settings) -> None:
    with serving(settings) as served:
        assert served.get("/v1/events/rejected", "operator").status_code == 503


@pytest.mark.parametrize("limit", ["0", "1001", "many", "-1"])
def test_a_limit_out_of_bounds_is_refused_by_name(served: Served, limit: str) -> None:
    answer = served.get("/v1/events/rejected", "operator", limit=limit)
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["errors"]] == ["query.limit"]
