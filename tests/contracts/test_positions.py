"""Does a reader know where it stands: the log's two ends, and what of it may be read?

Control records take offsets, so counting records never gives a position. What is not committed yet
hides everything after it: that place is the last stable offset (KIP-98).
"""

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AiokafkaPartition
from confluent_kafka import KafkaError, TopicPartition

from runtime.clock import now_ms
from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.waiting import eventually


def numbered(first: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, end)]


def test_watermarks_are_the_first_offset_and_the_one_after_the_last(
    broker: Broker, topic: str
) -> None:
    assert broker.ends(topic) == (0, 0)
    broker.put(topic, *numbered(0, 10))
    assert broker.ends(topic) == broker.ends(topic, "read_committed") == (0, 10)


def test_position_at_the_end_counts_control_records(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    producer = broker.transactional(fresh_name("lane"))
    for transaction in range(3):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % transaction, partition=0)
        producer.commit_transaction(30)
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 6))
    seen = broker.read(topic)
    assert seen.records == [(0, b"0"), (2, b"1"), (4, b"2")]
    assert seen.position == broker.ends(topic)[1] == 6
    # A reader that begins between a record and its control record is at the end as well.
    assert broker.read(topic, 5) == broker.read(topic, 5, "read_uncommitted")
    assert broker.read(topic, 5).position == 6


def test_open_transaction_holds_the_last_stable_offset(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    broker.put(topic, b"before")
    producer = broker.transactional(fresh_name("lane"))
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    assert producer.flush(30) == 0
    broker.put(topic, b"after")
    stable = broker.ends(topic, "read_committed"), broker.ends(topic)
    hidden, shown = broker.read(topic), broker.read(topic, 0, "read_uncommitted")
    assert shown.records == [(0, b"before"), (1, b"open"), (2, b"after")]
    assert stable == ((0, 1), (0, 3))
    assert (hidden.records, hidden.position) == ([(0, b"before")], 1)
    producer.commit_transaction(30)
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 4))
    assert broker.read(topic).records == shown.records


def test_aborted_records_are_hidden_and_take_their_offsets(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    producer = broker.transactional(fresh_name("lane"))
    producer.begin_transaction()
    producer.produce(topic, b"aborted", partition=0)
    assert producer.flush(30) == 0
    producer.abort_transaction(30)
    # Like a commit, it answers before its control record is written.
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 2))
    broker.put(topic, b"after")
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 3))
    seen = broker.read(topic)
    assert (seen.records, seen.position) == ([(2, b"after")], 3)
    assert broker.read(topic, 0, "read_uncommitted").records == [(0, b"aborted"), (2, b"after")]


def values_from_mid_log(broker: Broker, topic: str) -> list[list[bytes | None]]:
    """What readers get that begin at offsets 4, 6 and 8."""
    return [[value for _, value in broker.read(topic, at).records] for at in (4, 6, 8)]


def test_reader_from_mid_log_after_an_abort_sees_all_that_is_committed(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    producer = broker.transactional(fresh_name("lane"))
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number, partition=0)
        if number == 1:
            assert producer.flush(30) == 0
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 12))
    assert [value for _, value in broker.read(topic).records] == [b"0", *numbered(2, 6)]
    broker.shows(
        values_from_mid_log(broker, topic),
        [numbered(2, 6), numbered(3, 6), numbered(4, 6)],
        # It goes on naming the old abort, and clients drop what that producer wrote later.
        trial=[[], [], []],
    )


def test_reader_from_mid_log_sees_what_a_new_owner_committed_after_an_abort(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    """The way out in trial mode: each owner of a lane writes under a name of its own."""
    name = fresh_name("lane")
    first = broker.transactional(f"{name}.1")
    for number in range(2):
        first.begin_transaction()
        first.produce(topic, b"%d" % number, partition=0)
        if number == 0:
            first.commit_transaction(30)
    assert first.flush(30) == 0
    broker.transactional(f"{name}.1")  # aborts what the first had open
    second = broker.transactional(f"{name}.2")
    for number in range(2, 6):
        second.begin_transaction()
        second.produce(topic, b"%d" % number, partition=0)
        second.commit_transaction(30)
    eventually(lambda: broker.ends(topic, "read_committed") == (0, 12))
    assert values_from_mid_log(broker, topic) == [numbered(2, 6), numbered(3, 6), numbered(4, 6)]


def test_offset_outside_the_log_is_an_error_not_another_place(broker: Broker, topic: str) -> None:
    broker.put(topic, *numbered(0, 3))
    with broker.consumer() as consumer:
        consumer.assign([TopicPartition(topic, 0, 7)])
        message = eventually(lambda: consumer.poll(0.2), every_s=0)
        assert message.error().code() == KafkaError._AUTO_OFFSET_RESET


def test_deleted_records_are_gone_and_the_first_offset_says_so(broker: Broker, topic: str) -> None:
    broker.put(topic, *numbered(0, 10))
    admin = broker.admin()
    for done in admin.delete_records([TopicPartition(topic, 0, 6)]).values():
        assert done.result(30).low_watermark == 6
    assert broker.ends(topic) == (6, 10)
    assert broker.read(topic, 6).records == list(zip(range(6, 10), numbered(6, 10), strict=True))
    with broker.consumer() as consumer:
        consumer.assign([TopicPartition(topic, 0, 5)])
        message = eventually(lambda: consumer.poll(0.2), every_s=0)
        assert message.error().code() == KafkaError._AUTO_OFFSET_RESET


def test_offset_of_a_time_is_that_of_the_first_record_not_before_it(
    broker: Broker, topic: str
) -> None:
    # Of today: older ones are beyond the topic's retention.
    base_ms = now_ms() - 10_000
    producer = broker.producer()
    for timestamp in (base_ms, base_ms + 1_000):
        producer.produce(topic, b"x", partition=0, timestamp=timestamp)
        assert producer.flush(30) == 0
    wanted = {-1: 0, 0: 0, 1: 1, 1_000: 1, 1_001: -1}
    with broker.consumer() as consumer:
        found = {
            after_ms: consumer.offsets_for_times(
                [TopicPartition(topic, 0, base_ms + after_ms)], 30
            )[0].offset
            for after_ms in wanted
        }
    assert found == wanted


def test_fetch_sends_no_more_than_was_asked_for(broker: Broker, topic: str) -> None:
    """But for one batch, which is sent whole."""
    count = 30
    for number in range(count):
        broker.put(topic, b"%d" % number + bytes(1_000))

    async def fetch_once() -> int:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.servers, max_partition_fetch_bytes=3_000
        )
        await consumer.start()
        try:
            place = AiokafkaPartition(topic, 0)
            consumer.assign([place])
            consumer.seek(place, 0)
            return len((await consumer.getmany(timeout_ms=20_000))[place])
        finally:
            await consumer.stop()

    is_limited = asyncio.run(fetch_once()) < count
    broker.shows(is_limited, True, trial=False)
