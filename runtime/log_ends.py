"""Where does each partition's log begin and end, as somebody is told who never asked before?"""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime.retry import Stopped
from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 15.0
_LOOK_EVERY_S = 0.1
_UNCOMMITTED = IsolationLevel.READ_UNCOMMITTED


def log_ends(
    bootstrap_servers: str,
    topic: str,
    partitions: int | Iterable[int],
    *,
    within_s: float = ANSWER_WITHIN_S,
    isolation: str = "read_uncommitted",
) -> dict[int, tuple[int, int]]:
    """Partition (so many, or these) -> (first offset, end), by default with records of unfinished
    transactions.

    A commit returns before its records may be read: whoever waits until the end of committed
    records may see an end before what was just committed. Raises StoreUnavailable when Kafka does
    not answer `within_s` for each.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "headwater.ends",
            "isolation.level": isolation,
        }
    )
    wanted = range(partitions) if isinstance(partitions, int) else partitions
    try:
        return {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), within_s) for p in wanted
        }
    except KafkaException as error:
        raise StoreUnavailable(
            f"Kafka did not tell the ends of {topic}: {error.args[0]}"
        ) from error
    finally:
        consumer.close()


def ends_of_all(
    bootstrap_servers: str,
    topics: Iterable[str],
    partitions: int,
    *,
    within_s: float,
    stop: threading.Event | None = None,
) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the end of each that holds something, in two questions to each broker,
    with records of unfinished transactions. Raises StoreUnavailable unless all are told, Stopped
    once `stop` is set meanwhile."""
    stranger = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 2})
    places = [(topic, p) for topic in topics for p in range(partitions)]
    firsts, ends = (
        offsets_of(stranger, places, spec, within_s=within_s, isolation=_UNCOMMITTED, stop=stop)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
    )
    if not firsts.keys() & ends.keys() >= set(places):
        raise StoreUnavailable("Kafka did not tell the ends of all inputs")
    return {place: end for place, end in ends.items() if end > firsts[place]}


def offsets_of(
    admin: AdminClient,
    places: Iterable[tuple[str, int]],
    spec: OffsetSpec,
    *,
    within_s: float,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    stop: threading.Event | None = None,
) -> dict[tuple[str, int], int]:
    """(topic, partition) -> offset; those without an answer `within_s` are left out.

    Raises Stopped once `stop` is set meanwhile.
    """
    wanted = {TopicPartition(*place): spec for place in places}
    found: dict[tuple[str, int], int] = {}
    if not wanted:
        return found
    asked: dict[Any, Future[Any]] = admin.list_offsets(
        wanted, isolation_level=isolation, request_timeout=within_s
    )
    until_s = time.monotonic() + within_s
    while wait(asked.values(), _LOOK_EVERY_S).not_done and time.monotonic() < until_s:
        if stop is not None and stop.is_set():
            raise Stopped
    for at, answer in asked.items():
        try:
            offset = answer.result(0).offset
        except (KafkaException, TimeoutError):
            continue
        # A broker that did not answer in time is told by an offset below 0, not by an error.
        if offset >= 0:
            found[at.topic, at.partition] = offset
    return found
