"""Whom does Headwater take for one person, who is in which segment, and what is due to whom?

Shares no code with the product: plain clients of Redis and Kafka, bytes by the committed schemas.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import redis
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.avro import decode

ANSWER_WITHIN_S = 20
CHANGED, DUE, DEFINED = "segments.changed", "journeys.due", "segments.defined"


def read_records(url: str, prefix: str, pids: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What Redis keeps of each name, as its lane wrote it. Raises OSError without an answer."""
    client = redis.Redis.from_url(url, socket_timeout=ANSWER_WITHIN_S)
    try:
        pipe: Any = client.pipeline(transaction=False)
        for pid in pids.values():
            pipe.hget(f"{prefix}{pid}", "p")
        answers = pipe.execute()
    except redis.RedisError as error:
        raise OSError(str(error)) from error
    finally:
        client.close()
    found = zip(pids, answers, strict=True)
    return {name: decode(value) for name, value in found if value is not None}


def read_topic(kafka: str, topic: str, pids: Collection[str]) -> list[dict[str, Any]]:
    """Every committed record of these pids, in the order of their partition.

    Raises OSError without an answer.
    """
    return [decode(value) for value in _values(kafka, topic, {bytes.fromhex(pid) for pid in pids})]


def read_definitions(kafka: str) -> list[dict[str, Any]] | None:
    """The segments that were applied last; None if none ever were. Raises OSError."""
    sets = map(decode, _values(kafka, DEFINED, {b"@segments"}))
    newest = max(sets, key=lambda each: int(each["version"]), default={})
    definitions: list[dict[str, Any]] | None = json.loads(newest.get("definitions", "null"))
    return definitions


def _values(kafka: str, topic: str, keys: Collection[bytes]) -> Iterator[bytes]:
    """The committed records under these keys; raises OSError."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "fault-checker",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "log_level": 2,
        }
    )
    try:
        listed = reader.list_topics(topic, ANSWER_WITHIN_S).topics[topic].partitions
        to = {p: reader.get_watermark_offsets(TopicPartition(topic, p), 20) for p in listed}
        waiting = {p for p, (begin, end) in to.items() if begin < end}
        reader.assign([TopicPartition(topic, p, to[p][0]) for p in waiting])
        until_s = time.monotonic() + ANSWER_WITHIN_S
        while waiting:
            if time.monotonic() > until_s:
                raise OSError(f"{topic} is not read to its end within {ANSWER_WITHIN_S} s")
            for message in reader.consume(2_000, 0.2):
                value = message.value()
                if message.error() is None and value is not None and message.key() in keys:
                    yield value
            at = reader.position([TopicPartition(topic, p) for p in waiting])
            waiting -= {each.partition for each in at if each.offset >= to[each.partition][1]}
    except KafkaException as error:
        raise OSError(str(error)) from error
    finally:
        reader.close()
