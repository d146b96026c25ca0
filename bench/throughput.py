"""How many events does one stream worker handle in a second of its processor time?

    python -m bench.throughput [--events 200000] [--rounds 3] [--peer-events 20000]
    python -m bench.throughput --before CHECKOUT    this checkout and an older one, in turns
    python -m bench.throughput --segments 20        with so many segments and without, in turns
    python -m bench.throughput --segments 20 --journey    and with the cart journey besides

Each round fills fresh topics, then runs one Headwater worker with both sinks beside it until
everything is in ClickHouse and Redis, then the other engine on the same job in the same round:
stock Faust, Headwater as it was, or Headwater without segments and journey. Compare the two of
one run, never numbers of different days.
Processor time is the worker process's, user and system, from the first batch on. A row for each
engine goes to bench/results.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.results import HERE, record
from bench.segments import segments as definitions
from bench.workload import BEGAN_MS, fill
from headwater.keys import provide_keys
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.embedded import EmbeddedStack, Wanted
from runtime.segment_log import apply_segments
from runtime.settings import ClickHouse, Kafka, Redis, Settings
from runtime.settings_journeys import Journey

WITHIN_S = 300.0
HOUR_MS = 3_600_000
CARTS = Journey(id="abandoned_cart", topic="cart_reminders")
"""The journey that is shipped, as the demo has it."""


@dataclass(frozen=True, slots=True)
class Round:
    """One engine once: events per second of wall and of the worker's processor time."""

    per_wall_s: float
    per_cpu_s: float


def main() -> None:
    """Run the rounds and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--peer-events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout to compare with, not stock Faust")
    parser.add_argument("--segments", type=int, default=0, help="so many, compared with none")
    parser.add_argument("--journey", action="store_true", help="the cart journey, against none")
    parser.add_argument("--no-record", action="store_true", help="write no row to results.csv")
    chosen = parser.parse_args()
    other = "before" if chosen.before else "stock Faust"
    is_about_rules = bool(chosen.segments or chosen.journey)
    if is_about_rules:
        other = "without"
    ours: list[Round] = []
    theirs: list[Round] = []
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
        EmbeddedStack(Path(folder) / "servers", Wanted(), say=print) as stack,
    ):
        for number in range(chosen.rounds):
            work = Path(folder) / str(number)
            work.mkdir()
            settings = _settings(stack, work, f"bench{number}")
            if chosen.journey:
                settings = settings.model_copy(update={"journeys": (CARTS,)})
            # Windows look back from now: what lies years behind would cost them nothing.
            began_ms = now_ms() - HOUR_MS if is_about_rules else BEGAN_MS
            job = {"seed": number, "began_ms": began_ms}
            ours.append(
                _headwater(settings, work, HERE, chosen.events, **job, segments=chosen.segments)
            )
            if is_about_rules:
                again = work / "without"
                again.mkdir()
                settings = _settings(stack, again, f"without{number}")
                theirs.append(_headwater(settings, again, HERE, chosen.events, **job))
            elif chosen.before:
                again = work / "before"
                again.mkdir()
                settings = _settings(stack, again, f"before{number}")
                before = chosen.before.resolve()
                theirs.append(_headwater(settings, again, before, chosen.events, **job))
            else:
                theirs.append(_stock_faust(settings, work, chosen.peer_events, seed=number))
            ratio = ours[-1].per_cpu_s / theirs[-1].per_cpu_s
            print(
                f"round {number + 1}: headwater {ours[-1].per_cpu_s:,.0f}/cpu-s "
                f"({ours[-1].per_wall_s:,.0f}/s), {other} "
                f"{theirs[-1].per_cpu_s:,.0f}/cpu-s: {ratio:.2f} times"
            )
        broker = stack.broker_kind
    if not chosen.no_record:
        name = f"throughput headwater, both sinks, {broker}"
        if is_about_rules:
            asked = f"{chosen.segments} segments" if chosen.segments else "no segments"
            journey = " and the cart journey" if chosen.journey else ""
            _record(f"{name}, {asked}{journey}", ours, HERE)
            no_journey = ", no journey" if chosen.journey else ""
            _record(f"{name}, no segments{no_journey}, same run", theirs, HERE)
            return
        _record(name, ours, HERE)
        if chosen.before:
            _record(f"{name}, before, same run", theirs, chosen.before)
        else:
            _record(f"throughput stock faust, no state log, {broker}", theirs, HERE)


def _record(name: str, rounds: list[Round], checkout: Path) -> None:
    record(
        name,
        per_wall_s=[each.per_wall_s for each in rounds],
        per_cpu_s=[each.per_cpu_s for each in rounds],
        checkout=checkout,
    )


def _settings(stack: EmbeddedStack, folder: Path, name: str) -> Settings:
    addresses = stack.addresses
    bare = Settings(
        data_dir=str(folder / "data"),
        kafka=Kafka(
            bootstrap_servers=addresses.bootstrap_servers,
            topic_prefix=f"{name}.",
            instance_id="bench",
            is_trial=stack.broker_kind == "trial",
        ),
        redis=Redis(url=addresses.redis_url, key_prefix=f"{name}:"),
        clickhouse=ClickHouse(url=addresses.clickhouse_url, database=name),
    )
    return provide_keys(bare, folder / "data").settings


def _headwater(
    settings: Settings,
    folder: Path,
    checkout: Path,
    events: int,
    *,
    seed: int,
    began_ms: int,
    segments: int = 0,
) -> Round:
    prepare_stores(settings)
    if segments:
        apply_segments(settings, definitions(segments))
    topic = settings.topic_names.collected
    accepted = fill(settings.kafka.bootstrap_servers, topic, events, seed, began_ms)
    file = folder / f"settings{seed}.json"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    known = subprocess.run(
        [
            sys.executable,
            "-c",
            "from runtime.settings import Settings as S; print(*S.model_fields)",
        ],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=checkout,
    ).stdout.split()
    # What is as we ship it stays out, and whole sections that an older checkout does not know.
    file.write_text(settings.model_dump_json(exclude_defaults=True, include=set(known)), "utf-8")
    started: list[subprocess.Popen[bytes]] = []

    def start(role: str) -> tuple[subprocess.Popen[bytes], Path]:
        ready = folder / f"{role}{seed}.ready"
        log = (folder / f"{role}.log").open("ab")
        command = [sys.executable, "-m", "headwater", "run", role, "--settings", str(file)]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready)],
            stderr=log,
            stdout=log,
            env=environment,
            cwd=checkout,
        )
        started.append(process)
        return process, ready

    try:
        for role in ("accepted-to-clickhouse", "subjects-to-redis"):
            _until((start(role)[1]).exists)
        worker, ready = start("streams")
        _until(ready.exists)
        cpu_before_s, began_s = _cpu_s(worker.pid), time.perf_counter()
        applied, counted = _applied_counter(settings), _facts_counter(settings)
        _until(lambda: applied() >= events)
        cpu_s = _cpu_s(worker.pid) - cpu_before_s
        _until(lambda: counted() >= accepted)
        return Round(events / (time.perf_counter() - began_s), events / cpu_s)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def _applied_counter(settings: Settings) -> Callable[[], int]:
    """Input records behind the group's offsets, which follow the lanes within a second."""
    group = f"{settings.kafka.topic_prefix}headwater.streams"
    reader = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group})
    topic = settings.topic_names.collected
    partitions = [TopicPartition(topic, p) for p in range(settings.kafka.partitions)]
    return lambda: sum(max(0, at.offset) for at in reader.committed(partitions, 10))


def _facts_counter(settings: Settings) -> Callable[[], int]:
    client = connect(settings)
    query = "SELECT sum(records) FROM progress FINAL"
    return lambda: int(client.query(query).result_rows[0][0] or 0)


def _stock_faust(settings: Settings, folder: Path, events: int, *, seed: int) -> Round:
    names = {"collected": f"peer{seed}.collected", "accepted": f"peer{seed}.accepted"}
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for future in admin.create_topics([NewTopic(name, 4, 1) for name in names.values()]).values():
        future.result(30)
    fill(settings.kafka.bootstrap_servers, names["collected"], events, seed)
    ready, done = folder / f"peer{seed}.ready", folder / f"peer{seed}.done"
    config = folder / f"peer{seed}.json"
    config.write_text(
        json.dumps(
            {
                "group": f"peer{seed}",
                "bootstrap_servers": settings.kafka.bootstrap_servers,
                "data_dir": str(folder / f"faust{seed}"),
                "ready_file": str(ready),
                "done_file": str(done),
                "events": events,
                **names,
            }
        ),
        "utf-8",
    )
    log = (folder / "peer.log").open("ab")
    worker = subprocess.Popen(
        [sys.executable, "-m", "bench.peers.stock_faust", str(config)], stderr=log, stdout=log
    )
    try:
        _until(ready.exists)
        cpu_before_s, began_s = _cpu_s(worker.pid), time.perf_counter()
        _until(done.exists)
        took_s = time.perf_counter() - began_s
        return Round(events / took_s, events / (_cpu_s(worker.pid) - cpu_before_s))
    finally:
        worker.terminate()
        worker.wait(60)


def _cpu_s(process_id: int) -> float:
    """Processor seconds of a process so far, user and system, from /proc."""
    after_name = Path(f"/proc/{process_id}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise SystemExit("the benchmark did not finish in time")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
