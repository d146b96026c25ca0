"""Does the broker do what the stream relies on, and are its jars fetched whole or not at all?"""

import os
import subprocess
import sys
import threading
from base64 import b64decode
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from runtime import apache_kafka
from runtime.apache_kafka import Tools, jar_cache, look_for_tools, provide_jars
from schemas.errors import SettingInvalid
from tests.conftest import FreshName
from tests.waiting import eventually

OF_4_3_1 = b64decode(
    "AAAAAAAAAAAAAABHAAAAAAKXG6lZACAAAAAAAAABogITmkMAAAGiAhOaQ///////////////////AAAAASoAAAAI"
    "AAAAAxYAAAAAAAAAAAAAAAAAAAAAAAAAAQAAAPEAAAAAAgSzmvAAAAAAAAUAAAGiAhOaTgAAAaICE5pO////////"
    "//////////8AAAAGOgAAAAEuAQwAEW1ldGFkYXRhLnZlcnNpb24AHgAAWgAAAgFOAQwAIWVsaWdpYmxlLmxlYWRl"
    "ci5yZXBsaWNhcy52ZXJzaW9uAAEAADQAAAQBKAEMAA5ncm91cC52ZXJzaW9uAAEAADQAAAYBKAEMAA5zaGFyZS52"
    "ZXJzaW9uAAEAADgAAAgBLAEMABBzdHJlYW1zLnZlcnNpb24AAQAAQAAACgE0AQwAFHRyYW5zYWN0aW9uLnZlcnNp"
    "b24AAgAAAAAAAAAAAAcAAAA/AAAAAAI3TZrSACAAAAAAAAABogITmk8AAAGiAhOaT///////////////////AAAA"
    "ARoAAAAIAAAABAYAAAAA"
)
"""bootstrap.checkpoint of a directory that Apache Kafka 4.3.1 formatted."""
JAR = f"kafka_2.13-{apache_kafka.VERSION}.jar"


@pytest.fixture
def topic(kafka: str, fresh_name: FreshName) -> str:
    name = fresh_name("broker")
    admin = AdminClient({"bootstrap.servers": kafka})
    for made in admin.create_topics([NewTopic(name, 1, 1)]).values():
        made.result()
    return name


def _read(kafka: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []

    def is_read() -> bool:
        values.extend(message.value() for message in consumer.consume(1000, timeout=0.5))
        return len(values) >= count

    eventually(is_read, within_s=30)
    consumer.close()
    return values


def test_a_transaction_appears_whole_or_not_at_all(
    kafka: str, topic: str, fresh_name: FreshName
) -> None:
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": fresh_name("lane")})
    producer.init_transactions(30)
    for outcome in ("aborted", "committed"):
        producer.begin_transaction()
        for number in range(10):
            producer.produce(topic, f"{outcome} {number}")
        if outcome == "aborted":
            producer.flush(10)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    assert _read(kafka, topic, 10) == [f"committed {number}".encode() for number in range(10)]


def test_a_second_producer_of_a_lane_fences_the_first(
    kafka: str, topic: str, fresh_name: FreshName
) -> None:
    lane = {"bootstrap.servers": kafka, "transactional.id": fresh_name("lane"), "log_level": 1}
    first, second = Producer(lane), Producer(lane)
    first.init_transactions(30)
    first.begin_transaction()
    first.produce(topic, b"zombie")
    second.init_transactions(30)
    with pytest.raises(KafkaException) as raised:
        first.commit_transaction(30)
    assert raised.value.args[0].code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
    second.begin_transaction()
    second.produce(topic, b"owner")
    second.commit_transaction(30)
    assert _read(kafka, topic, 1) == [b"owner"]


def test_a_message_of_a_megabyte_is_taken(kafka: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka, "message.max.bytes": 2_000_000})
    large = os.urandom(1_000_000)
    errors: list[KafkaError | None] = []
    producer.produce(topic, large, on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert errors == [None]
    assert _read(kafka, topic, 1) == [large]


@pytest.mark.apache
def test_a_misspelt_topic_is_not_made(kafka: str, fresh_name: FreshName) -> None:
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": kafka, "message.timeout.ms": 3000})
    name = fresh_name("misspelt")
    producer.produce(name, b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    assert errors and errors[0] is not None
    assert name not in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics


def _fake_maven(directory: Path, script: str) -> Tools:
    maven = directory / "mvn"
    maven.write_text(f"#!/bin/sh\n{script}\n")
    maven.chmod(0o755)
    return Tools(java=Path("/bin/true"), maven=maven, jars=None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return jar_cache()


def test_jars_are_fetched_once(tmp_path: Path, cache: Path) -> None:
    fetch = f'for a; do case $a in -DoutputDirectory=*) d="${{a#*=}}"; esac; done; mkdir "$d" && touch "$d/{JAR}"'
    said: list[str] = []
    assert provide_jars(_fake_maven(tmp_path, fetch), said.append) == cache
    assert "45 MB" in said[0]
    assert look_for_tools().jars == cache
    assert provide_jars(look_for_tools(), said.append) == cache
    assert len(said) == 1
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_two_that_fetch_at_once_both_find_them(tmp_path: Path, cache: Path) -> None:
    fetch = f'for a; do case $a in -DoutputDirectory=*) d="${{a#*=}}"; esac; done; mkdir "$d" && touch "$d/{JAR}"'
    tools = _fake_maven(tmp_path, fetch)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(provide_jars(tools, lambda _: None)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache] * 4


def test_maven_that_fails_leaves_nothing_and_says_why(tmp_path: Path, cache: Path) -> None:
    fail = "echo '[ERROR] Could not resolve dependencies: no route to host'; exit 1"
    with pytest.raises(SettingInvalid, match="no route to host; check the network, or set"):
        provide_jars(_fake_maven(tmp_path, fail), lambda _: None)
    assert not cache.exists()
    assert list(cache.parent.iterdir()) == []


def test_directory_of_a_newer_kafka_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "meta.properties").touch()
    (log / "bootstrap.checkpoint").write_bytes(OF_4_3_1)
    expected = (
        rf"{log} was formatted by a newer Apache Kafka \(metadata\.version 30\); the embedded one "
        rf"is {apache_kafka.VERSION} and reads up to \d+\. Choose an empty data_dir"
    )
    with pytest.raises(SettingInvalid, match=expected):
        apache_kafka.format_once(Path("/no/java"), tmp_path, tmp_path / "no.properties", log)
    assert {path.name for path in log.iterdir()} == {"meta.properties", "bootstrap.checkpoint"}


@pytest.mark.apache
def test_directory_that_the_embedded_kafka_formatted_is_taken_again(tmp_path: Path) -> None:
    tools = look_for_tools()
    assert tools.java is not None
    jars, log = provide_jars(tools, print), tmp_path / "log"
    properties = apache_kafka.write_properties(tmp_path, port=1, controller_port=2)
    apache_kafka.format_once(tools.java, jars, properties, log)
    assert apache_kafka.metadata_level(log) == apache_kafka.METADATA_LEVEL
    apache_kafka.format_once(Path("/no/java"), jars, properties, log)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HEADWATER_TEST_BROKER": "trial"}, "(HEADWATER_TEST_BROKER=trial)"),
        (
            {
                "HEADWATER_TEST_BROKER": "auto",
                "PATH": "/nowhere",
                "XDG_CACHE_HOME": "/nowhere",
                "JAVA_HOME": "",
            },
            "(no Java 17 or newer and neither Maven nor cached jars in /nowhere/headwater/"
            f"kafka-{apache_kafka.VERSION}; install openjdk-17-jre-headless and maven)",
        ),
    ],
)
def test_tests_that_cannot_run_are_left_out_aloud(
    checkout: Path, environment: dict[str, str], reason: str
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
        ],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"left out: 2 Apache Kafka tests {reason}" in done.stdout
    assert "test_a_misspelt_topic_is_not_made" not in done.stdout
