"""Which events does the log say were set aside?

Read without the product: a plain Kafka client, and the bytes by the committed Avro schema. The API
shows the newest thousand only, by a clock that a fault may have moved.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

TOPIC = "events.rejected"
SCHEMA = Path(__file__).parents[2] / "schemas" / "rejected.avsc"
HEADER_BYTES = 5
ANSWER_WITHIN_S = 20


def ends(kafka: str) -> dict[int, int]:
    """Partition -> its end. Raises OSError when Kafka does not answer."""
    reader = _reader(kafka)
    try:
        listed = reader.list_topics(TOPIC, ANSWER_WITHIN_S).topics[TOPIC].partitions
        return {
            p: reader.get_watermark_offsets(TopicPartition(TOPIC, p), ANSWER_WITHIN_S)[1]
            for p in listed
        }
    except KafkaException as error:
        raise OSError(str(error)) from error
    finally:
        reader.close()


def read_explanations(kafka: str, since: Mapping[int, int]) -> list[dict[str, Any]]:
    """Every committed explanation from these offsets on, each with its own place as `at`.

    Raises OSError without an answer.
    """
    names = [each["name"] for each in json.loads(SCHEMA.read_text("utf-8"))["fields"]]
    types = [each["type"] for each in json.loads(SCHEMA.read_text("utf-8"))["fields"]]
    to = ends(kafka)
    waiting = {p for p, offset in since.items() if offset < to[p]}
    found: list[dict[str, Any]] = []
    reader = _reader(kafka)
    try:
        reader.assign([TopicPartition(TOPIC, p, since[p]) for p in waiting])
        until_s = time.monotonic() + ANSWER_WITHIN_S
        while waiting:
            if time.monotonic() > until_s:
                raise OSError(f"{TOPIC} is not read to its end within {ANSWER_WITHIN_S} s")
            for message in reader.consume(500, 0.2):
                value = message.value()
                if message.error() is None and value is not None:
                    fields = dict(zip(names, _decode(value, types), strict=True))
                    found.append(fields | {"at": (message.partition(), message.offset())})
            at = reader.position([TopicPartition(TOPIC, p) for p in waiting])
            waiting -= {each.partition for each in at if each.offset >= to[each.partition]}
    except KafkaException as error:
        raise OSError(str(error)) from error
    finally:
        reader.close()
    return found


def _reader(kafka: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "fault-checker",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "log_level": 2,
        }
    )


def _decode(value: bytes, types: list[Any]) -> list[Any]:
    """The fields of one record, by Avro's rules for strings, whole numbers and nullable ones."""
    at = HEADER_BYTES
    fields: list[Any] = []

    def number() -> int:
        nonlocal at
        shift = folded = 0
        while True:
            byte = value[at]
            at += 1
            folded |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (folded >> 1) ^ -(folded & 1)

    for type_ in types:
        kind = type_[number()] if isinstance(type_, list) else type_
        if kind == "null":
            fields.append(None)
        elif kind == "string":
            length = number()
            fields.append(value[at : at + length].decode())
            at += length
        else:
            fields.append(number())
    return fields
