"""Is anything of a person readable in any store, and is she gone from the disks in the end?

A canary has a word of her own in every field and comes in by every way. Then the disks are searched:
Kafka's segments, Redis' append-only file, ClickHouse's parts, every log. Horizons of days are
shortened to seconds where the servers keep them, and the desk's clock is turned on.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from consumers.erasures.log_looks import LogLooks
from consumers.erasures.redis_files import RedisFiles
from consumers.erasures.store import ErasureStore
from headwater.erase import run_verify
from runtime import apache_kafka
from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.processes import free_ports
from runtime.sealing import IdType
from runtime.servers import ApacheKafka
from runtime.settings import Settings, load_settings
from runtime.vault import Vault
from schemas.topics import DAY_MS
from tests.canaries import CONTROL, ORDERS, Canary
from tests.on_disk import found, names
from tests.up import Up
from tests.waiting import eventually

CODECS = ("none", "gzip", "lz4", "zstd")
PARTITIONS = 2


class HastyKafka(ApacheKafka):
    """Looks every second for what to forget, instead of every 15 and 60."""

    def _prepare(self) -> None:
        super()._prepare()
        with (self.directory / "server.properties").open("a") as file:
            # Of two lines with one name, Java takes the last.
            file.write(
                "log.retention.check.interval.ms=500\nlog.initial.task.delay.ms=500\n"
                "log.cleaner.backoff.ms=300\n"
            )


@dataclass(frozen=True)
class Place:
    """A `headwater up` and everything it writes, under one directory."""

    up: Up
    root: Path
    files: Path
    is_apache: bool

    @property
    def settings(self) -> Settings:
        return load_settings(self.up.data_dir / "run" / "settings.json", {})

    @property
    def stores(self) -> dict[str, str]:
        """Where each writes, under the root."""
        kafka = "broker/kafka" if self.is_apache else "data/noida-db"
        return {"kafka": kafka, "redis": "data/valkey", "clickhouse": "data/clickhouse"}

    def canary(self) -> Canary:
        return Canary(self.up, f"kanarek{uuid4().hex[:12]}")

    def orders(self) -> int:
        """Those of the control campaign."""
        campaigns = self.up.get("/v1/campaigns", "viewer")["campaigns"]
        return next((c["counters"]["orders"] for c in campaigns if c["campaign_id"] == CONTROL), 0)

    def await_orders(self, count: int) -> None:
        eventually(lambda: self.orders() == count, within_s=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root, files = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("files")
    tools = apache_kafka.look_for_tools()
    is_apache = os.environ.get("HEADWATER_TEST_BROKER") != "trial" and tools.is_enough
    # No backups: nothing to wait for. Deleted values leave the files at the first look after.
    config = f"[kafka]\npartitions = {PARTITIONS}\n"
    with ExitStack() as parts:
        if is_apache:
            assert tools.java is not None
            jars = apache_kafka.provide_jars(tools, print)
            broker = HastyKafka(root / "broker", java=tools.java, jars=jars)
            broker.ports = free_ports(broker.port_count)
            broker.start()
            parts.callback(broker.stop)
            broker.wait_ready()
            config += f'bootstrap_servers = "{broker.address}"\n'
        config += "[erasure]\nbackups_days = 0\nrewrite_every_hours = 0\n"
        (files / "headwater.toml").write_text(config)
        up = Up(root / "data", files / "headwater.toml")
        up.start()
        parts.callback(lambda: up.process is not None and up.process.poll() is None and up.end())
        made = Place(up, root, files, is_apache)
        with connect(made.settings) as client:
            for table in ("facts", "links", "accesses"):
                client.command(
                    f"ALTER TABLE {table} MODIFY SETTING old_parts_lifetime = 1, "
                    "cleanup_delay_period = 1, max_cleanup_delay_period = 1, "
                    "cleanup_delay_period_random_add = 0"
                )
        yield made


@pytest.fixture(scope="module")
def controls(place: Place) -> dict[str, bytes]:
    """By name what can be found in each store only if the search can unpack what that packs.

    Made before anybody comes in: writing Redis' file anew would take what the file had of them.
    """
    made = {}
    admin = AdminClient({"bootstrap.servers": place.settings.kafka.bootstrap_servers})
    admin.create_topics([NewTopic("control", 1, 1)])["control"].result(30)
    for codec in CODECS if place.is_apache else CODECS[:1]:
        producer = Producer(
            {
                "bootstrap.servers": place.settings.kafka.bootstrap_servers,
                "compression.type": codec,
                "linger.ms": 50,
            }
        )
        text = made[f"kafka {codec}"] = f"{codec}{uuid4().hex}".encode()
        for _ in range(50):
            producer.produce("control", text + b" said again")
        assert producer.flush(20) == 0
    made["redis"] = f"redis{uuid4().hex}".encode()
    with redis.Redis.from_url(place.settings.redis.url) as client:
        client.set("control", made["redis"] * 20)
        assert RedisFiles(
            place.settings, threading.Event()
        ).rewrite()  # into a snapshot, which packs it
    with connect(place.settings) as clickhouse:
        for codec in ("LZ4", "ZSTD"):
            text = made[f"clickhouse {codec}"] = f"{codec}{uuid4().hex}".encode()
            clickhouse.command(
                f"CREATE TABLE control_{codec} (a String CODEC({codec})) ENGINE = MergeTree "
                "ORDER BY tuple()"
            )
            clickhouse.command(
                f"INSERT INTO control_{codec} SELECT '{text.decode()}' FROM numbers(1000)"
            )
    return made


@dataclass(frozen=True)
class Known:
    """A canary in every store, and what an attacker with all key files would want of her."""

    person: Canary
    pids: Mapping[str, bytes]
    wrapped_keys: Mapping[str, bytes]


@pytest.fixture(scope="module")
def ada(place: Place, controls: Mapping[str, bytes]) -> Known:
    """She came in, is counted, and was asked about. The controls are there."""
    person = place.canary()
    before = place.orders()
    person.come_in(place.files)
    place.await_orders(before + ORDERS)
    # The profile comes by another way than the counter.
    for subject in person.subjects:
        eventually(partial(person.has_profile, subject))
    person.pass_by()
    return known(place, person)


def known(place: Place, person: Canary) -> Known:
    settings, pids, keys = place.settings, {}, {}
    vault = Vault.from_settings(settings)
    with redis.Redis.from_url(settings.vault_url) as client:
        for subject in person.subjects:
            id_type, _, external_id = subject.partition(":")
            one = vault.lookup(cast("IdType", id_type), external_id)
            if one is not None:
                pids[subject] = one.pid
                row = f"{settings.vault.key_prefix}key:{one.pid.hex()}"
                keys[subject] = cast("bytes", client.hget(row, "k"))
    vault.close()
    return Known(person, pids, keys)


def test_nothing_of_a_person_is_readable_in_any_store_or_log(
    place: Place, ada: Known, controls: Mapping[str, bytes]
) -> None:
    keys = {f"key {subject}": key for subject, key in ada.wrapped_keys.items()}
    readable = {**controls, "campaign": CONTROL.encode(), **ada.pids, **keys}

    def searched() -> dict[str, list[str]]:
        """The search works: it finds what is readable on purpose, in every store and however
        packed."""
        places = found(place.root, {**ada.person.words, **readable})
        assert keys.keys() <= {*names(places, within=place.stores["redis"])}
        for store in place.stores.values():
            assert {"campaign", *ada.pids} <= {*names(places, within=store)}, (store, places)
        for name in controls:
            store = place.stores[name.split()[0]]
            assert name in names(places, within=store), (name, places.get(name))
        return places

    places = eventually(searched)  # noida-db saves once a second
    assert not ada.person.words.keys() & places.keys(), places


@pytest.fixture(scope="module")
def erasures(place: Place, ada: Known) -> dict[str, str]:
    """Subject -> the erasure of it, of which the certificate is provisional, and which was verified
    since, so that the files of the stores were written anew."""
    asked = dict(zip(ada.person.subjects, ada.person.erase(), strict=True))
    for erasure_id in asked.values():
        ada.person.await_provisional(erasure_id)
        ada.person.run("erase", "--verify", erasure_id)
    return asked


def test_after_erasure_no_file_has_what_could_open_her_values(
    place: Place, ada: Known, erasures: Mapping[str, str]
) -> None:
    settings = place.settings
    keys = {f"key {subject}": key for subject, key in ada.wrapped_keys.items()}
    assert len(keys) == len(ada.person.subjects)
    ids = {f"erasure {subject}": id_.encode() for subject, id_ in erasures.items()}
    wanted = {**ada.person.words, **keys, **ada.pids, **ids}
    places = eventually(lambda: found(place.root, wanted))
    assert ids.keys() <= {*names(places, within="data/logs")}  # logs are searched too
    # Whoever has the key-encryption key has nothing to unwrap with it; nobody finds her by a name.
    assert not keys.keys() & places.keys(), places
    assert not ada.person.words.keys() & places.keys(), places
    # Her sealed events are still in the log: that is what the horizons are for.
    assert {*ada.pids} <= {*names(places, within=place.stores["kafka"])}
    vault = Vault.from_settings(settings)
    try:
        assert vault.identifiers_of(list(ada.pids.values())) == [None] * len(ada.pids)
    finally:
        vault.close()
    for subject in ada.person.subjects:
        for path in (f"/v1/profiles/{subject}", f"/v1/subjects/{subject}/export"):
            assert ada.person.ask("admin", path).status_code == 404


@pytest.mark.apache
def test_after_the_horizons_not_even_her_pseudonym_is_on_any_disk(
    place: Place, ada: Known, erasures: Mapping[str, str]
) -> None:
    settings, topics = place.settings, place.settings.topic_names
    ahead_ms = 100 * DAY_MS

    def verify(erasure_id: str) -> str:
        clock = lambda: now_ms() + ahead_ms  # noqa: E731
        return str(run_verify(settings, erasure_id, say=print, clock=clock).state["status"])

    forget = (
        topics.collected, topics.accepted, topics.rejected, topics.moves, topics.journeys,
        topics.segments_changed,
    )  # fmt: skip
    with retention(settings, *forget):
        pass
    # The lanes asked for some too: of pids that belonged to an erased one.
    every = {*erasures.values(), *waiting(settings)}
    # The logs have forgotten: the lanes are told to drop the stubs, ClickHouse its marks.
    for erasure_id in every:
        assert verify(erasure_id) == "provisional"
    ahead_ms *= 2
    compact_soon(settings)

    def are_final() -> bool:
        # The segment that is written to is never compacted: what comes after begins a new one.
        roll(place)
        states = {id_: verify(id_) for id_ in every}
        assert set(states.values()) == {"final"}, states
        return True

    eventually(are_final, within_s=90, every_s=1)
    # What stays on purpose has limits of its own: ten years, and one year.
    with retention(settings, topics.erasures, topics.consents), connect(settings) as client:
        client.command("ALTER TABLE accesses MODIFY TTL toDateTime(read_at) + INTERVAL 1 SECOND")

    def is_nowhere() -> bool:
        places = found(place.root, dict(ada.pids))
        assert not places, places
        return True

    eventually(is_nowhere, within_s=60, every_s=1)
    for erasure_id in erasures.values():
        assert ada.person.status(erasure_id) == "final"


def waiting(settings: Settings) -> list[str]:
    """Every erasure that is not final."""
    store = ErasureStore.from_settings(settings)
    try:
        return store.due(range(PARTITIONS), now_ms() + 1_000 * DAY_MS, 100)
    finally:
        store.close()


@contextmanager
def retention(settings: Settings, *topics: str) -> Iterator[None]:
    """Nothing that was in these topics is left when it begins; they keep things again afterwards."""
    soon = {"retention.ms": "1", "segment.ms": "100", "file.delete.delay.ms": "0"}
    change(settings, topics, soon)
    eventually(lambda: all(is_empty(settings, topic) for topic in topics), within_s=60)
    yield
    change(settings, topics, {"retention.ms": str(DAY_MS), "segment.ms": str(DAY_MS)})


def is_empty(settings: Settings, topic: str) -> bool:
    looks = LogLooks(settings)
    try:
        return not any(looks.oldest_ms(topic, range(PARTITIONS)).values())
    finally:
        looks.close()


def compact_soon(settings: Settings) -> None:
    soon = {
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100",
        "delete.retention.ms": "0",
        "file.delete.delay.ms": "0",
    }
    change(settings, [settings.topic_names.subjects], soon)


def change(settings: Settings, topics: Sequence[str], config: Mapping[str, str]) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                for key, value in config.items()
            ],
        )
        for topic in topics
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)


def roll(place: Place) -> None:
    """Something new is in every partition of subjects: somebody was seen in every lane."""
    call = place.canary().call("page")
    for number in range(4 * PARTITIONS):
        place.canary().send(
            "page", {**call, "messageId": uuid4().hex, "userId": f"x{number}-{uuid4()}"}
        )


def test_redis_put_back_from_an_old_copy_of_its_directory(place: Place) -> None:
    person = place.canary()
    before = place.orders()
    user = {"userId": person.of("user")}
    person.send("track", person.call("track", **user))
    person.come_by_file(place.files)
    place.await_orders(before + 2)
    subject = person.subjects[0]
    eventually(partial(person.has_profile, subject))
    told = known(place, person)
    directory, copy = place.up.data_dir / "valkey", place.files / "valkey"
    shutil.copytree(directory, copy)
    answer = person.ask("privacy_officer", "/v1/erasures", {"subject": subject, "reason": "other"})
    erasure_id = str(answer.json()["erasure_id"])
    person.await_provisional(erasure_id)
    assert place.up.end() == 0
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
    keys = {f"key {of}": key for of, key in told.wrapped_keys.items()}
    assert keys.keys() <= found(directory, keys).keys()  # the copy is what it should be
    place.up.start()
    person.await_provisional(erasure_id)
    assert not known(place, person).pids
    assert not person.has_profile(subject)
    # Late, and imported again: all of it is dropped.
    person.come_by_file(place.files)
    person.send("track", person.call("track", **user))
    person.send("identify", person.call("identify", **user))
    other = place.canary()
    other.send("track", other.call("track", userId=other.of("user")))
    place.await_orders(before + 3)
    assert not known(place, person).pids
    assert place.up.verdict()["verified"]
