"""How does a whole Headwater run under a fault's hands: real servers, every role its own process?

The rig starts Apache Kafka (one broker or three), Valkey, ClickHouse's engine and every role by
`headwater run`, and starts again what dies, as a supervisor does. A fault reaches each of them as a
Part, arms named points inside the roles, moves their clocks, and can stand between a role and a
server (`Plan.between`).
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from headwater.keys import provide_keys, write_private
from headwater.roles import prepare_stores
from runtime.processes import free_ports
from runtime.servers import ApacheKafka, ClickHouse, NoidaDb, Valkey
from runtime.settings import Settings
from tests.faults.parts import Part, RolePart, ServerPart
from tests.faults.standing import SideKafka, one_broker
from tests.faults.supervisor import Supervisor
from tests.kafka_cluster import KafkaCluster
from tests.waiting import eventually

CART: dict[str, Any] = {
    "id": "cart",
    "topic": "cart-reminders",
    "wait_minutes": 60,
    "follow_ups_hours": [],
    "cool_down_days": 0,
}
"""One message about a cart left behind for an hour, and another one when it was changed since."""
SINKS = ("accepted-to-clickhouse", "subjects-to-redis")


class Between(Protocol):
    """Something that stands between roles and a server, such as a TCP proxy."""

    @property
    def address(self) -> str:
        """host:port for the roles."""

    def close(self) -> None:
        """It has ended, with everything that it forwarded."""


@dataclass(frozen=True)
class Plan:
    """What a fault wants of a rig; faults of equal plans share one.

    `between` maps `kafka`, `redis`, `clickhouse` or `collector`, of one role alone `ROLE/redis`, or
    one of three brokers `kafka-1`, to what makes a Between from the server's host:port; as pairs,
    so that a plan can be compared. Roles that no pair names talk to the server itself. `prepare` is
    given the rig's directory before anything starts, `clean` when all has ended. `settings`
    overlays the roles' settings: (section, name, value). `is_trial` takes noida-db for a broker, which
    goes with one stream worker.
    """

    brokers: int = 1
    streams: int = 2
    partitions: int = 4
    between: tuple[tuple[str, Callable[[str], Between]], ...] = ()
    settings: tuple[tuple[str, str, object], ...] = ()
    prepare: Callable[[Path], None] | None = None
    clean: Callable[[Path], None] | None = None
    is_trial: bool = False


@dataclass
class Rig:
    """A running Headwater. Use it from one thread, as a context."""

    directory: Path
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        self.servers: dict[str, Part] = {}
        self.roles: dict[str, RolePart] = {}
        self.between: dict[str, Between] = {}
        """By the names in the plan; what a fault makes slow, deaf or dumb."""
        self.cluster: KafkaCluster | None = None
        """When the plan wants three brokers."""
        self.points = self.directory / "points"
        self.settings = Settings(data_dir=str(self.directory))
        self._numbers = itertools.count(1)
        self._supervisor = Supervisor(lambda: self.parts.values())

    # -- who is there

    @property
    def parts(self) -> dict[str, Part]:
        return {**self.servers, **self.roles}

    @property
    def streams(self) -> list[RolePart]:
        """The stream workers that are supervised now."""
        return [part for part in self.roles.values() if part.role == "streams"]

    @property
    def collector_url(self) -> str:
        between = self.between.get("collector")
        return f"http://{between.address if between else self._upstream('collector')}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def kafka_address(self) -> str:
        """bootstrap.servers without anything between."""
        return self.settings.kafka.bootstrap_servers

    @property
    def clickhouse_url(self) -> str:
        return self.settings.clickhouse.url

    # -- life

    def start(self) -> Self:
        """Everything runs and is ready."""
        self.points.mkdir(parents=True, exist_ok=True)
        if self.plan.prepare is not None:
            self.plan.prepare(self.directory)
        kafka = self._start_servers()
        ports = free_ports(2)
        self._ports = {"collector": ports[0], "api": ports[1]}
        self.settings = self._make_settings(kafka)
        prepare_stores(self.settings)
        for name, make in self.plan.between:
            if name in self.between:
                continue
            self.between[name] = make(self._upstream(name.rpartition("/")[2]))
        for role in ("collector", "api", *SINKS):
            self._add(role, role)
        for _ in range(self.plan.streams):
            self.add_streams()
        self._supervisor.start()
        for part in self.roles.values():
            part.wait_ready()
        return self

    def _start_servers(self) -> str:
        servers: list[Valkey | ClickHouse | ApacheKafka | NoidaDb] = [
            Valkey(self.directory),
            ClickHouse(self.directory),
        ]
        make_kafka = dict(self.plan.between).get("kafka")
        if self.plan.is_trial:
            servers.append(NoidaDb(self.directory))
        elif self.plan.brokers == 1:
            servers.append(one_broker(self.directory, SideKafka if make_kafka else ApacheKafka))
        for server in servers:
            server.ports = free_ports(server.port_count)
            if make_kafka and isinstance(server, SideKafka):
                self.between["kafka"] = make_kafka(f"127.0.0.1:{server.ports[2]}")
                server.told = self.between["kafka"].address
            self.servers[server.name] = ServerPart(server)
            self.servers[server.name].start()
        address = servers[-1].address
        if self.plan.brokers > 1:
            address = self._start_cluster()
        for part in self.servers.values():
            part.wait_ready()
        return address

    def _start_cluster(self) -> str:
        cluster = self.cluster = KafkaCluster(self.directory)
        for name, make in self.plan.between:
            if name.startswith("kafka-"):
                broker = int(name.removeprefix("kafka-"))
                self.between[name] = make(f"127.0.0.1:{cluster.bound[broker].clients}")
                port = int(self.between[name].address.rpartition(":")[2])
                cluster.advertise(broker, clients=port)
        cluster.begin()
        self.servers |= {each.name: ServerPart(each) for each in cluster.brokers.values()}
        return cluster.bootstrap_servers

    def _make_settings(self, kafka: str) -> Settings:
        valkey, clickhouse = self.servers["valkey"], self.servers["clickhouse"]
        assert isinstance(valkey, ServerPart) and isinstance(clickhouse, ServerPart)
        values = self.settings.model_dump()
        values["kafka"] |= {
            "bootstrap_servers": kafka,
            "partitions": self.plan.partitions,
            "replication_factor": 3 if self.plan.brokers >= 3 else 1,
            "is_trial": self.plan.is_trial,
        }
        values["redis"]["url"] = valkey.address
        values["clickhouse"]["url"] = clickhouse.address
        values["journeys"] = [CART]
        for section, name, value in self.plan.settings:
            values[section][name] = value
        return provide_keys(Settings.model_validate(values), self.directory).settings

    def _upstream(self, server: str) -> str:
        if server == "kafka":
            return self.kafka_address
        if server == "collector":
            return f"127.0.0.1:{self._ports['collector']}"
        url = self.settings.redis.url if server == "redis" else self.settings.clickhouse.url
        return url.partition("://")[2].partition("/")[0]

    def _settings_of(self, name: str, role: str, instance_id: str) -> dict[str, dict[str, Any]]:
        """The settings of one part: its port, its name for good, and its way to each server."""
        values: dict[str, dict[str, Any]] = json.loads(self.settings.model_dump_json())
        values["kafka"]["instance_id"] = instance_id
        values["http"]["port"] = self._ports.get(name, 0)
        for server, section, key in (
            ("kafka", "kafka", "bootstrap_servers"),
            ("redis", "redis", "url"),
            ("clickhouse", "clickhouse", "url"),
        ):
            between = self.between.get(f"{role}/{server}") or self.between.get(server)
            if between is not None:
                direct = self._upstream(server)
                values[section][key] = values[section][key].replace(direct, between.address)
        return values

    def _add(self, name: str, role: str, *, is_named: bool = True) -> RolePart:
        file = self.directory / "run" / f"{name}.json"
        instance_id = name if is_named else ""
        write_private(file, json.dumps(self._settings_of(name, role, instance_id)))
        part = RolePart(name, (role,), self.directory, file)
        part.start()
        self.roles = {**self.roles, name: part}  # the supervisor may be walking the old one
        return part

    def add_streams(self, *, is_named: bool = True) -> RolePart:
        """One more stream worker; `is_named` makes it a static member of its group."""
        return self._add(f"streams-{next(self._numbers)}", "streams", is_named=is_named)

    def add_role(self, role: str) -> RolePart:
        """One more process of a role, a dynamic member of its group."""
        return self._add(f"{role}-{next(self._numbers)}", role, is_named=False)

    def remove(self, part: RolePart) -> None:
        """Stop a worker for good; the others take its lanes."""
        self.roles = {name: each for name, each in self.roles.items() if each is not part}
        part.stop()

    def stop(self) -> None:
        """Everything has ended."""
        self._supervisor.let_go()
        for part in (*self.roles.values(), *self.servers.values()):
            part.stop()
        for between in self.between.values():
            between.close()
        self._supervisor.end()
        if self.plan.clean is not None:
            self.plan.clean(self.directory)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what a fault can do beside hurting parts

    def arm(self, point: str, what: str = "kill") -> None:
        """The next role that passes `point` (tests/faults/points.py) does `what`."""
        part = self.points / f".{point}"
        part.write_text(what)
        part.rename(self.points / point)

    def wait_hit(self, point: str, within_s: float = 30) -> int:
        """The process id of the role that passed an armed point."""

        def hit() -> int:
            for file in self.points.glob(f"{point}.*.hit"):
                file.unlink()
                return int(file.name.split(".")[-2])
            return 0

        return eventually(hit, within_s=within_s)

    def disarm(self) -> None:
        """No point is armed, nobody's clock is shifted."""
        for file in self.points.iterdir():
            file.unlink(missing_ok=True)

    def shift_clock(self, part: str, seconds: float) -> None:
        """From now on `part` believes that it is so much later."""
        file = self.points / f".clock.{part}"
        file.write_text(str(seconds))
        file.rename(self.points / f"clock.{part}")

    def is_sound(self) -> bool:
        """True while every part runs, is ready, and nobody holds one down."""
        return all(part.is_ready() and not part.is_held_down for part in self.parts.values())

    def make_sound(self, within_s: float = 60) -> None:
        """Nothing is armed, asleep or held down, and everything is ready."""
        self.disarm()
        for part in self.parts.values():
            part.is_held_down = False
            part.go_on()
        eventually(self.is_sound, within_s=within_s, every_s=0.1)
