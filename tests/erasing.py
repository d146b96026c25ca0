"""A whole Headwater on shared servers, whose parts a test stops and starts: for erasures."""

import base64
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis
from clickhouse_connect.driver.client import Client

from consumers.erasures.erasures_to_certificates import Desk, run_erasures
from consumers.rules.times import rfc3339
from headwater.verify import Verdict, verify
from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.settings import Erasure, Journey, Settings
from runtime.topics_admin import ensure_topics
from runtime.vault import Vault
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from sinks.subjects_to_redis import run_subjects_to_redis
from tests.integration import serving
from tests.sink_log import running
from tests.stream_worker import Worker
from tests.waiting import eventually

DAY_MS = 86_400_000


@dataclass
class Clock:
    """Real time, and as many days more as a test lets pass."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


@dataclass
class House:
    """Everything but the roles that a test starts itself."""

    settings: Settings
    http: serving.Served
    vault: Vault
    clickhouse: Client
    redis: "redis.Redis"
    worker: Worker
    clock: Clock = field(default_factory=Clock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # -- people

    def someone(self) -> str:
        """A user id that nobody has."""
        return f"u{next(self.numbers)}"

    def call(self, user: str, kind: str = "track", **more: Any) -> dict[str, Any]:
        """One call, as an SDK sends it."""
        number = next(self.numbers)
        call = {
            "messageId": f"m{number}",
            "userId": user,
            "type": kind,
            "timestamp": rfc3339(now_ms()),
        }
        return call | more

    def order(self, user: str, campaign: str = "spring", **more: Any) -> dict[str, Any]:
        properties = {
            "campaign_id": campaign,
            "order_id": f"o{next(self.numbers)}",
            "total": "12.5",
            "currency": "EUR",
        }
        return self.call(user, event="Order Completed", properties=properties, **more)

    def opened(self, user: str, campaign: str = "spring") -> dict[str, Any]:
        return self.call(user, event="Email Opened", properties={"campaign_id": campaign})

    def send(self, *calls: dict[str, Any]) -> None:
        """Send calls and have them acknowledged."""
        key = base64.b64encode(f"{serving.KEYS['write']}:".encode()).decode()
        answer = httpx.post(
            f"{self.http.url}/v1/batch",
            json={"batch": calls},
            headers={"Authorization": f"Basic {key}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text

    def pid_of(self, user: str) -> bytes:
        found = self.vault.lookup("user", user)
        assert found is not None
        return found.pid

    # -- asking

    def erase(self, user: str, role: str = "privacy_officer") -> httpx.Response:
        return httpx.post(
            f"{self.http.url}/v1/erasures",
            json={"subject": f"user:{user}", "reason": "withdrawn"},
            headers={"Authorization": f"Bearer {serving.KEYS[role]}"},
            timeout=30,
        )

    def erased(self, user: str) -> str:
        """The id of a person's erasure, which was taken."""
        answer = self.erase(user)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["erasure_id"])

    def state(self, erasure_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/erasures/{erasure_id}", "privacy_officer")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def await_status(self, erasure_id: str, status: str = "provisional") -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            state = self.state(erasure_id)
            assert state["status"] == status, state["stores"]
            return state

        return eventually(found, within_s=60)

    def await_known(self, erasure_id: str) -> None:
        """Wait until the role has taken it up."""
        path = f"/v1/erasures/{erasure_id}"
        eventually(lambda: self.http.get(path, "privacy_officer").status_code == 200)

    def look(self, erasure_id: str) -> dict[str, Any]:
        """As `headwater erase --verify`: look into every store now."""
        with Desk(self.settings, self.clock) as desk:
            desk.look([erasure_id])
        return self.state(erasure_id)

    def remaining(self, erasure_id: str) -> dict[str, int]:
        """What the last look found left, by store."""
        found: dict[str, int] = {}
        for look in self.state(erasure_id)["stores"]:
            found[look["store"]] = found.get(look["store"], 0) + look["remaining"]
        return found

    def campaign(self, campaign: str = "spring") -> dict[str, Any]:
        """Counters and money of a campaign, as the page shows them."""
        answer = self.http.get("/v1/campaigns", "viewer").json()
        for each in answer["campaigns"]:
            if each["campaign_id"] == campaign:
                return {**each["counters"], "revenue": each["revenue"], "rates": each["rates"]}
        return {}

    def series(self, metric: str, campaign: str = "spring") -> list[Any]:
        return list(
            self.http.get(f"/v1/campaigns/{campaign}/series", "viewer", metric=metric).json()[
                "points"
            ]
        )

    def verdict(self) -> Verdict:
        """What `headwater verify` finds once everything sent is counted."""
        return verify(self.settings, wait_s=30)

    def facts_of(self, pid: bytes) -> int:
        return int(
            self.clickhouse.query(
                f"SELECT count() FROM facts WHERE pid = unhex('{pid.hex()}') AND campaign_id != ''"
            ).result_rows[0][0]
        )

    def await_counted(self, **counters: int) -> dict[str, Any]:
        """Wait until the campaign shows these."""

        def found() -> dict[str, Any] | None:
            shown = self.campaign()
            assert {name: shown.get(name) for name in counters} == counters
            return shown

        return eventually(found, within_s=60)

    # -- parts

    @contextmanager
    def roles(self, *names: str) -> Iterator[None]:
        """Sinks and the role `erasure`, while inside; all three without names."""
        known = {
            "subjects": run_subjects_to_redis,
            "accepted": run_accepted_to_clickhouse,
            "erasure": self._erasures,
        }
        with ExitStack() as parts:
            for name in names or known:
                parts.enter_context(running(known[name], self.settings))
            yield

    def _erasures(self, settings: Settings, stop: threading.Event) -> None:
        run_erasures(settings, stop, self.clock)


@contextmanager
def house(
    directory: Path,
    name: str,
    *,
    kafka: str,
    redis_url: str,
    clickhouse_url: str,
    journeys: tuple[Journey, ...] = (),
    **erasure: Any,
) -> Iterator[House]:
    """Port and lanes run; topics and tables are there."""
    made = serving.settings_of(
        directory, kafka=kafka, redis_url=redis_url, clickhouse_url=clickhouse_url, name=name
    )
    (directory / "sign").write_text("fedcba9876543210" * 4)
    chosen = Erasure(signing_key_file=str(directory / "sign"), rewrite_every_hours=0, **erasure)
    settings = made.model_copy(update={"erasure": chosen, "journeys": journeys})
    ensure_topics(settings)
    with ExitStack() as parts:
        admin = parts.enter_context(connect(settings, database=""))
        apply_migrations(admin, settings.clickhouse.database)
        worker = Worker(directory, "streams", settings.model_dump_json()).start()
        parts.enter_context(worker)
        client = parts.enter_context(connect(settings))
        soon = "old_parts_lifetime = 1, cleanup_delay_period = 1, max_cleanup_delay_period = 1"
        for table in ("facts", "links"):
            client.command(f"ALTER TABLE {table} MODIFY SETTING {soon}")
        served = parts.enter_context(serving.serving(settings, ("collector", "api")))
        vault = Vault.from_settings(settings)
        parts.callback(vault.close)
        worker.wait_open()
        yield House(settings, served, vault, client, redis.Redis.from_url(redis_url), worker)
