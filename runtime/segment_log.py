"""How do definitions of segments get onto the log, and which are the newest there?

A set lies in every partition of `segments.defined`, written in one transaction under one name: of
two who apply at once, one is fenced and fails, so that all lanes see the same sets in the same
order.
"""

import json
from collections.abc import Sequence

from confluent_kafka import KafkaException, Producer

from runtime.clock import now_ms, real_ms
from runtime.settings import Settings
from runtime.transactions import fault_name, read_compacted
from schemas.codec import SEGMENTS_DEFINED
from schemas.errors import SettingInvalid, StoreUnavailable
from schemas.segment_records import SegmentsDefined
from schemas.segments import Segment, parse_segments, segments_to_json
from schemas.subjects import SEGMENTS_KEY

ANSWER_WITHIN_S = 30.0
MOST_BYTES = 524_288
NONE_DEFINED = SegmentsDefined(0, 0, "[]")


def newest_segments(settings: Settings, within_s: float = ANSWER_WITHIN_S) -> SegmentsDefined:
    """What was applied last; version 0 where nothing ever was. Raises StoreUnavailable."""
    return _newest_in(0, settings, within_s)  # every partition holds the same


def _newest_in(partition: int, settings: Settings, within_s: float) -> SegmentsDefined:
    topics = settings.topic_names
    group = f"{topics.prefix}headwater.segments"
    found = read_compacted(
        settings.kafka.bootstrap_servers, topics.segments_defined, partition, group, within_s
    )
    value = found.newest.get(SEGMENTS_KEY)
    return NONE_DEFINED if value is None else SEGMENTS_DEFINED.decode(value)


def segments_of(defined: SegmentsDefined) -> tuple[Segment, ...]:
    """The definitions in a record."""
    return parse_segments(json.loads(defined.definitions))


def apply_segments(settings: Settings, segments: Sequence[Segment]) -> SegmentsDefined | None:
    """These are the newest, in every lane's log; None where they were already.

    Raises StoreUnavailable when that is not certain: then look, and apply them again.
    """
    definitions = segments_to_json(segments)
    if len(definitions.encode()) > MOST_BYTES:
        raise SettingInvalid(
            f"segments: expected definitions of at most {MOST_BYTES} bytes of JSON"
        )
    topics = settings.topic_names
    name = f"{topics.prefix}headwater.segments"
    if settings.kafka.is_trial:
        # What noida-db remembers of one that was aborted hides later records of the same producer.
        name = f"{name}.{real_ms()}"
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "transactional.id": name,
            "transaction.timeout.ms": 10_000,
            # That a young broker is asked again is no news to whoever sees our standard error.
            "log_level": 3,
        }
    )
    try:
        producer.init_transactions(ANSWER_WITHIN_S)
        # Read behind the fence: nobody else can add to it without fencing us.
        newest = newest_segments(settings)
        if newest.definitions == definitions and newest.version:
            # A partition that was added since knows of none, and its lane has no other source.
            last = settings.kafka.partitions - 1
            if not last or _newest_in(last, settings, ANSWER_WITHIN_S) == newest:
                return None
        defined = SegmentsDefined(newest.version + 1, now_ms(), definitions)
        value = SEGMENTS_DEFINED.encode(defined)
        producer.begin_transaction()
        for partition in range(settings.kafka.partitions):
            producer.produce(topics.segments_defined, value, SEGMENTS_KEY, partition)
        producer.commit_transaction(ANSWER_WITHIN_S)
    except KafkaException as error:
        raise StoreUnavailable(
            f"the segments may not be applied ({fault_name(error)}): somebody else applied some at "
            "the same time, or the broker did not answer; look with `headwater segments list`"
        ) from error
    return defined
