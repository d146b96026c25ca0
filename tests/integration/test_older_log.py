"""Is everybody who asks Kafka anything answered again after its log went back?

A client that remembers a leader believes none that is older: asked once more, it gives the same
error for ever. So whoever has no answer asks as a stranger.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from consumers.erasures.log_looks import LogLooks
from runtime.changes import ChangeReader
from runtime.embedded import EmbeddedStack, Wanted
from runtime.fresh_consumer import FreshConsumer
from runtime.log_reading import LogReading
from runtime.servers import Server
from runtime.settings import Settings
from runtime.stalls import Standing
from runtime.watchdog import KafkaRanges
from schemas.errors import StoreUnavailable
from tests.waiting import eventually

TOPIC = "asked"
OLDER, NEWER = 10, 15
"""Records in the log, before and when it went back."""

Ask = Callable[[], int | None]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A broker of this test's own, with a copy of its directory when it had OLDER records; its
    address."""
    wanted = Wanted(broker="apache", redis=False, clickhouse=False)
    with EmbeddedStack(tmp_path / "broker", wanted) as stack:
        (kafka,) = (server for server in stack.servers if server.name == "kafka")
        address = stack.addresses.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": address})
        for made in admin.create_topics([NewTopic(TOPIC)]).values():
            made.result(30)
        put(address, OLDER)
        kafka.stop()
        shutil.copytree(kafka.directory, tmp_path / "older", symlinks=True)
        start(kafka)
        put(address, NEWER - OLDER)
        # With every start comes a newer leader: clients know one that the copy has never had.
        kafka.stop()
        start(kafka)
        yield kafka, address


def start(kafka: Server) -> None:
    kafka.start()
    kafka.wait_ready()


def put(address: str, count: int) -> None:
    """So many more records."""
    producer = Producer({"bootstrap.servers": address})
    for number in range(count):
        producer.produce(TOPIC, b"%d" % number, partition=0)
    assert producer.flush(30) == 0


@pytest.fixture
def asks(broker: tuple[Server, str]) -> Iterator[dict[str, Ask]]:
    """Who asks -> where it says that the log ends; None without an answer."""
    _, address = broker
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": address}})
    changes = ChangeReader(address, [TOPIC], 0, "older")
    reading, looks = LogReading(settings, TOPIC), LogLooks(settings)
    ranges = KafkaRanges(address, 5.0)

    def of_ranges() -> int | None:
        told = ranges({(TOPIC, 0): Standing(NEWER)})
        return told[TOPIC, 0].end if told else None

    def answered(ask: Callable[[], int]) -> Ask:
        def asked() -> int | None:
            try:
                return ask()
            except StoreUnavailable:
                return None

        return asked

    yield {
        "the watchdog": of_ranges,
        "a lane, for decisions": answered(lambda: changes.ends()[TOPIC]),
        "the ledger": answered(lambda: reading.bounds(0)[1]),
        "an erasure": answered(lambda: looks._range(TOPIC, 0)[1]),
    }
    changes.close()
    reading.close()
    looks.close()


@pytest.mark.apache
def test_whoever_knew_the_newer_log_hears_the_end_of_the_older_one(
    broker: tuple[Server, str], asks: dict[str, Ask], tmp_path: Path
) -> None:
    kafka, _ = broker
    for who, ask in asks.items():
        assert ask() == NEWER, who
    kafka.stop()
    shutil.rmtree(kafka.directory)
    shutil.copytree(tmp_path / "older", kafka.directory, symlinks=True)
    start(kafka)
    told: dict[str, int | None] = {}

    def is_heard_by_all() -> bool:
        told.update({who: ask() for who, ask in asks.items()})
        return set(told.values()) == {OLDER}

    eventually(is_heard_by_all, within_s=60, every_s=0.5)


def test_after_no_answer_another_client_is_asked() -> None:
    asking = FreshConsumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0})
    clients: list[Consumer] = []

    def ask(*, is_answered: bool) -> None:
        with asking.asked() as client:
            clients.append(client)
            if not is_answered:
                raise StoreUnavailable("no answer")

    ask(is_answered=True)
    with pytest.raises(StoreUnavailable):
        ask(is_answered=False)
    ask(is_answered=True)
    ask(is_answered=True)
    asking.close()
    first, second, third, fourth = map(id, clients)
    assert first == second != third == fourth
