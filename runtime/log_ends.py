"""Where does each partition's log begin and end, as somebody is told who never asked before?"""

from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 15.0


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
