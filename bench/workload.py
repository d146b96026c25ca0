"""Which events do the benchmarks send? The same for every engine, from a seed."""

import random
from collections.abc import Iterator

from confluent_kafka import Producer

from schemas.codec import COLLECTED
from schemas.events import Collected
from schemas.topics import PARTITIONER

PEOPLE = 20_000
DUPLICATE_EVERY = 50
SEALED_BYTES = 180
BEGAN_MS = 1_700_000_000_000

_MAIL = b'"context":{"campaign":{"name":"c%d","source":"news","medium":"email"}}'
_KINDS = (
    (
        "Product Viewed",
        b'{"properties":{"product_id":"p%d","sku":"s%d","price":19.99,"currency":"EUR"},'
        + _MAIL
        + b"}",
    ),
    ("Email Opened", b'{"properties":{"email_id":"e%d","list_id":"l%d","campaign_id":"c%d"}}'),
    (
        "Product Added",
        b'{"properties":{"product_id":"p%d","sku":"s%d","price":19.99,"quantity":1},'
        + _MAIL
        + b"}",
    ),
    (
        "Order Completed",
        b'{"properties":{"order_id":"o%d","affiliation":"a%d","total":59.97,"currency":"EUR"},'
        + _MAIL
        + b"}",
    ),
)


def workload(events: int, seed: int, began_ms: int = BEGAN_MS) -> Iterator[Collected]:
    """`events` collected events of about 390 bytes: four kinds, 20 campaigns, 2% copies."""
    chance = random.Random(seed)
    people = [chance.randbytes(16) for _ in range(PEOPLE)]
    recent: list[Collected] = []
    for number in range(events):
        if recent and number % DUPLICATE_EVERY == DUPLICATE_EVERY - 1:
            yield chance.choice(recent)
            continue
        name, clear = _KINDS[number % len(_KINDS)]
        at_ms = began_ms + number * 20
        event = Collected(
            chance.randbytes(16),
            people[chance.randrange(PEOPLE)],
            "bench",
            "track",
            name,
            at_ms,
            at_ms + 5,
            at_ms + 50,
            0,
            chance.getrandbits(31),
            clear % (number, number % 500, number % 20),
            [],
            1,
            chance.randbytes(SEALED_BYTES),
        )
        if len(recent) < 1000:
            recent.append(event)
        else:
            recent[number % 1000] = event
        yield event


def fill(
    bootstrap_servers: str, topic: str, events: int, seed: int, began_ms: int = BEGAN_MS
) -> int:
    """The workload lies in `topic`; how many of its events are no copies."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": PARTITIONER,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    distinct: set[bytes] = set()
    for number, event in enumerate(workload(events, seed, began_ms)):
        distinct.add(event.event_id)
        producer.produce(topic, COLLECTED.encode(event), event.pid)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(60):
        raise SystemExit("the broker did not take the workload")
    return len(distinct)
