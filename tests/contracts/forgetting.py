"""What does the broker forget, and when?

`subjects` relies on compaction: the newest value of each key stays, older ones go, a tombstone goes
at last (that is how an erased person leaves the log). All other topics rely on retention by time.

Not collected from here: the embedded Apache Kafka looks for what to forget every 15 s and every
minute, so these run where it is looked for every second (test_on_cluster.py) and on noida-db.
"""

from tests.contracts.broker import Broker
from tests.contracts.conftest import MakeTopic
from tests.waiting import eventually

FORGOTTEN_WITHIN_S = 60

SOON = {
    "cleanup_policy": "compact",
    "segment_ms": "100",
    "min_cleanable_dirty_ratio": "0.01",
    "min_compaction_lag_ms": "0",
    "max_compaction_lag_ms": "100",
    "delete_retention_ms": "0",
}


def test_compaction_keeps_the_newest_value_of_each_key_and_its_offset(
    broker: Broker, make_topic: MakeTopic
) -> None:
    topic = make_topic(**SOON)
    broker.put(topic, b"1", b"2", b"3", key=b"changed")
    broker.put(topic, b"1", None, key=b"erased")
    broker.put(topic, b"1", key=b"kept")

    def is_compacted() -> bool:
        # The newest segment is never cleaned: each record that is older than segment.ms rolls it.
        broker.put(topic, b"x", key=b"rolls")
        kept = [record for record in broker.read(topic).records if record[1] != b"x"]
        assert kept == [(2, b"3"), (5, b"1")], kept
        return True

    eventually(is_compacted, within_s=FORGOTTEN_WITHIN_S, every_s=0.3)


def test_records_older_than_retention_are_gone(broker: Broker, make_topic: MakeTopic) -> None:
    topic = make_topic(retention_ms="100", segment_ms="100")
    broker.put(topic, b"old")

    def is_gone() -> bool:
        broker.put(topic, b"new")
        return broker.ends(topic)[0] > 0

    eventually(is_gone, within_s=FORGOTTEN_WITHIN_S, every_s=0.3)
