"""Do the real servers keep what they acknowledged, through restarts and kill -9?"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import clickhouse_connect
import pytest
import redis
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from runtime import apache_kafka
from runtime.embedded import Choice, EmbeddedStack, Wanted
from runtime.processes import is_running
from runtime.servers import Server
from schemas.errors import SettingInvalid, StoreUnavailable
from tests.waiting import eventually

BROKERS = ["trial", pytest.param("apache", marks=pytest.mark.apache)]
TOPIC = "kept"


def _make_topic(bootstrap_servers: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for made in admin.create_topics([NewTopic(TOPIC, 2, 1)]).values():
        made.result()


def _producer(bootstrap_servers: str) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 5,
            "log_level": 2,
        }
    )


def _values(bootstrap_servers: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(2)])
    values: list[bytes] = []
    ended: set[int] = set()

    def is_read() -> bool:
        for message in consumer.consume(10_000, timeout=1):
            if message.error() is None:
                values.append(message.value())
            else:
                ended.add(message.partition())
        return len(ended) == 2

    eventually(is_read, within_s=60)
    consumer.close()
    return values


def _kill(server: Server) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not server.is_alive(), within_s=10)


def _restart(server: Server) -> None:
    server.start()
    server.wait_ready()


def _write_until_killed(
    server: Server, write: Callable[[int], None], fault: type[Exception]
) -> int:
    """Write numbers from 0 while the server is killed; how many were acknowledged."""
    acknowledged = 0
    enough = threading.Event()

    def work() -> None:
        nonlocal acknowledged
        with suppress(fault):
            while True:
                write(acknowledged)
                acknowledged += 1
                if acknowledged == 200:
                    enough.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert enough.wait(60)
    _kill(server)
    worker.join()
    return acknowledged


@pytest.mark.parametrize("broker", BROKERS)
def test_data_and_addresses_survive_a_restart(tmp_path: Path, broker: Choice) -> None:
    with EmbeddedStack(tmp_path, Wanted(broker=broker)) as stack:
        before = stack.addresses
        assert stack.broker_kind == broker
        _make_topic(before.bootstrap_servers)
        producer = _producer(before.bootstrap_servers)
        for number in range(1000):
            producer.produce(TOPIC, str(number).encode())
        assert producer.flush(30) == 0
        redis.Redis.from_url(before.redis_url).set("a", "1")
        with clickhouse_connect.get_client(dsn=before.clickhouse_url) as client:
            client.command("CREATE DATABASE kept")
            client.command("CREATE TABLE kept.t (a UInt8) ENGINE = MergeTree ORDER BY a")
            client.insert("kept.t", [[1], [2]], column_names=["a"])
    assert not any(server.is_alive() for server in stack.servers)

    with EmbeddedStack(tmp_path, Wanted()) as stack:
        after = stack.addresses
        assert after == before
        assert stack.broker_kind == broker, "auto keeps the broker that the directory began with"
        assert sorted(map(int, _values(after.bootstrap_servers))) == list(range(1000))
        assert redis.Redis.from_url(after.redis_url).get("a") == b"1"
        with clickhouse_connect.get_client(dsn=after.clickhouse_url) as client:
            assert client.command("SELECT sum(a) FROM kept.t") == 3


@pytest.mark.apache
def test_apache_kafka_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    wanted = Wanted(broker="apache", redis=False, clickhouse=False)
    with EmbeddedStack(tmp_path, wanted) as stack:
        (server,) = stack.servers
        _make_topic(server.address)
        producer = _producer(server.address)
        acknowledged: set[bytes] = set()
        sent = 0

        def remember(error: KafkaError | None, message: Message) -> None:
            if error is None:
                acknowledged.add(message.value())

        def send_more(until: int) -> None:
            nonlocal sent
            while len(acknowledged) < until:
                with suppress(BufferError):
                    producer.produce(TOPIC, str(sent).encode(), on_delivery=remember)
                    sent += 1
                producer.poll(0)

        for round_number in (1, 2):
            send_more(round_number * 20_000)
            _kill(server)
            _restart(server)
        assert producer.flush(60) == 0
        values = _values(server.address)
        assert len(acknowledged) == sent
        assert len(values) == len(set(values)) == sent


def test_valkey_killed_under_load_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    wanted = Wanted(broker=None, redis=True, clickhouse=False)
    with EmbeddedStack(tmp_path, wanted) as stack:
        (server,) = stack.servers
        client = redis.Redis.from_url(server.address)

        def write(number: int) -> None:
            client.set(str(number), number)

        acknowledged = _write_until_killed(server, write, redis.RedisError)
        _restart(server)
        found = redis.Redis.from_url(server.address).mget(map(str, range(acknowledged)))
        assert [int(value) for value in found if value is not None] == list(range(acknowledged))


def test_clickhouse_killed_under_load_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    wanted = Wanted(broker=None, redis=False, clickhouse=True)
    with EmbeddedStack(tmp_path, wanted) as stack:
        (server,) = stack.servers
        with clickhouse_connect.get_client(dsn=server.address) as client:
            client.command(
                "CREATE TABLE t (n UInt64, part UInt8) ENGINE = MergeTree ORDER BY n "
                "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
            )

            def write(number: int) -> None:
                client.insert("t", [[number, part] for part in range(10)], ["n", "part"])

            acknowledged = _write_until_killed(server, write, ClickHouseError)
        _restart(server)
        with clickhouse_connect.get_client(dsn=server.address) as client:
            whole = "SELECT n FROM t GROUP BY n HAVING count() = 10 ORDER BY n"
            found = [row[0] for row in client.query(whole).result_rows]
            # The one in flight may be there or not, but whole.
            assert found in (list(range(acknowledged)), list(range(acknowledged + 1)))
            assert client.command("SELECT count() % 10 FROM t") == 0


def test_clickhouse_stops_in_time_beside_a_long_query(tmp_path: Path) -> None:
    wanted = Wanted(broker=None, redis=False, clickhouse=True)
    with EmbeddedStack(tmp_path, wanted) as stack:
        (server,) = stack.servers

        def query() -> None:
            with (
                clickhouse_connect.get_client(dsn=server.address) as client,
                suppress(ClickHouseError),
            ):
                client.command(
                    "SELECT sleepEachRow(1) FROM numbers(60) FORMAT Null",
                    settings={"function_sleep_max_microseconds_per_block": 0},
                )

        asking = threading.Thread(target=query)
        asking.start()
        running = "SELECT count() FROM system.processes WHERE query LIKE '%60%' AND elapsed > 0.1"
        with clickhouse_connect.get_client(dsn=server.address) as client:
            eventually(lambda: client.command(running) == 1, within_s=30)
        before_s = time.monotonic()
        server.stop()
        assert time.monotonic() - before_s < 20
        asking.join()


OWNER = """
import json, sys
from pathlib import Path
from runtime.embedded import EmbeddedStack, Wanted
stack = EmbeddedStack(Path(sys.argv[1]), Wanted(broker=sys.argv[2]))
stack.start()
print(json.dumps([server.pid for server in stack.servers]), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("broker", BROKERS)
def test_no_server_outlives_a_killed_owner(tmp_path: Path, broker: Choice) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), broker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        assert len(pids) == 3 and all(map(is_running, pids))
        with pytest.raises(SettingInvalid, match=f"in use by process {owner.pid}"):
            EmbeddedStack(tmp_path, Wanted()).start()
        owner.kill()
    # The next owner need not wait: it stops what is still stopping.
    with EmbeddedStack(tmp_path, Wanted()):
        assert not any(map(is_running, pids))


def _noida_db_pid(keeper_pid: int) -> int:
    (pid,) = Path(f"/proc/{keeper_pid}/task/{keeper_pid}/children").read_text().split()
    return int(pid)


class _Load:
    """Records sent to the broker without a pause, and those of them that it acknowledged."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.acknowledged: set[bytes] = set()
        self._producer = _producer(bootstrap_servers)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        number = 0
        while not self._is_over.is_set():
            # Long, so that saving takes a while, in which more could be acknowledged.
            value = str(number).encode().ljust(1000)
            with suppress(BufferError):
                self._producer.produce(TOPIC, value, on_delivery=self._remember)
                number += 1
            self._producer.poll(0 if number % 20 else 0.004)

    def _remember(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.add(message.value())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        goal = len(self.acknowledged) + 3000
        eventually(lambda: len(self.acknowledged) >= goal)


TRIAL = Wanted(broker="trial", redis=False, clickhouse=False)


@pytest.mark.skipif(sys.platform != "linux", reason="finds noida-db's process by /proc")
def test_trial_broker_refuses_signals_and_stops_under_load_without_a_loss(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, TRIAL) as stack:
        (server,) = stack.servers
        _make_topic(server.address)
        assert server.pid is not None
        pids = [server.pid, _noida_db_pid(server.pid)]
        with _Load(server.address) as load:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                load.wait_for_more()
                os.killpg(server.pid, number)
            load.wait_for_more()
            assert all(map(is_running, pids))
            assert "SIGTERM refused" in server.log_file.read_text("utf-8")
            server.stop()
            assert not any(map(is_running, pids))
        _restart(server)
        assert load.acknowledged <= set(_values(server.address))


@pytest.mark.skipif(sys.platform != "linux", reason="finds noida-db's process by /proc")
def test_trial_broker_of_a_killed_owner_saves_and_ends(tmp_path: Path) -> None:
    script = OWNER.replace("Wanted(", "Wanted(redis=False, clickhouse=False, ")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), "trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        (keeper_pid,) = json.loads(owner.stdout.readline())
        pids = [keeper_pid, _noida_db_pid(keeper_pid)]
        address = f"127.0.0.1:{json.loads((tmp_path / 'ports.json').read_text())['noida-db'][0]}"
        _make_topic(address)
        with _Load(address) as load:
            load.wait_for_more()
            owner.kill()
            eventually(lambda: not any(map(is_running, pids)))
    with EmbeddedStack(tmp_path, TRIAL) as stack:
        assert load.acknowledged <= set(_values(stack.addresses.bootstrap_servers))


@pytest.mark.skipif(sys.platform != "linux", reason="finds noida-db's process by /proc")
def test_trial_broker_ends_with_a_killed_keeper_and_comes_back(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, TRIAL) as stack:
        (server,) = stack.servers
        assert server.pid is not None
        pid = _noida_db_pid(server.pid)
        _kill(server)
        eventually(lambda: not is_running(pid))
        _restart(server)


def test_one_dead_server_comes_back_at_its_address(tmp_path: Path) -> None:
    wanted = Wanted(broker=None, redis=True, clickhouse=True)
    with EmbeddedStack(tmp_path, wanted) as stack:
        before = stack.addresses
        for server in stack.servers:
            _kill(server)
            assert not server.is_alive()
            _restart(server)
            assert server.is_alive()
        assert stack.addresses == before


def test_a_server_that_cannot_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "valkey"
    broken.mkdir()
    (broken / "appendonlydir").write_text("not a directory")
    stack = EmbeddedStack(tmp_path, Wanted(broker=None))
    with pytest.raises(
        StoreUnavailable, match=r"(?s)valkey ended .*logs.valkey\.log:\n.*appendonlydir"
    ):
        stack.start()
    assert not any(server.is_alive() for server in stack.servers)
    (broken / "appendonlydir").unlink()
    with EmbeddedStack(tmp_path, Wanted(broker=None, clickhouse=False)) as again:
        assert again.addresses.redis_url


def test_a_directory_stays_with_its_broker(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("trial\n")
    with pytest.raises(SettingInvalid, match='holds a log of "trial"; set it to "trial"'):
        EmbeddedStack(tmp_path, Wanted(broker="apache")).start()
    assert (tmp_path / "lock").exists()


def test_without_java_apache_is_refused_and_auto_says_why_it_is_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(
        SettingInvalid, match=r"no Java 17 .* Maven .*openjdk-17-jre-headless maven"
    ):
        EmbeddedStack(tmp_path / "one", Wanted(broker="apache")).start()
    wanted = Wanted(broker="auto", redis=False, clickhouse=False)
    with EmbeddedStack(tmp_path / "two", wanted) as stack:
        assert stack.broker_kind == "trial"
        assert "no Java 17" in stack.broker_sentence
        assert "kill -9 or a power cut can lose events" in stack.broker_sentence


def test_a_server_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.servers.ClickHouse.package", "no_such_package")
    stack = EmbeddedStack(tmp_path, Wanted(broker=None))
    with pytest.raises(
        SettingInvalid, match=r"clickhouse is not installed; pip install 'headwater"
    ):
        stack.start()
    assert stack.servers == ()


def test_an_old_java_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert apache_kafka.look_for_tools().java != java


def test_port_that_another_program_took_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = EmbeddedStack(tmp_path, Wanted(broker=None, clickhouse=False))
    assign = stack._assign_ports
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = iter([taken.getsockname()[1]])

        def assign_and_lose_one() -> None:
            assign()
            for server in stack.servers:
                server.ports = [next(ports, server.port)]

        monkeypatch.setattr(EmbeddedStack, "_assign_ports", lambda _: assign_and_lose_one())
        with stack:
            assert stack.addresses.redis_url
            assert str(taken.getsockname()[1]) not in stack.addresses.redis_url
