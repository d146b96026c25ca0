"""How long do many erasures at once take, from each request to its provisional certificate?

    python -m bench.erasures [--people 100000] [--erasures 1000] [--no-record]

One `headwater up` on fresh data, with the best broker that the machine can have. People come in
through the collector's own code (checked, sealed by the vault, produced), two events each, until
all are counted and have a profile. Then every erasure is asked for at the same moment, over HTTP.
An erasure's time runs from that moment until its certificate is where GET /v1/erasures finds it;
so it holds the wait behind the others. Afterwards each store is asked for the erased people, and
`headwater verify` for the counters.
"""

import argparse
import asyncio
import http.client
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import orjson

from bench.results import percentiles, record
from consumers.erasures.profile_looks import ProfileLooks
from consumers.erasures.store import ErasureStore
from headwater.running import settings_file_of
from headwater.verify import verify
from producers.calls_to_collected import Collector, Sender, sources_of
from producers.rules.bodies import Body
from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.settings import Settings, load_settings
from runtime.vault import Person, Vault

WITHIN_S = 240.0
CALLS_AT_ONCE = 2000
CONNECTIONS = 64
LOOK_EVERY_S = 0.1
CAMPAIGNS = 20


@dataclass(frozen=True, slots=True)
class Burst:
    """What many erasures at once took, each in ms: until the 202, and until it was provisional."""

    answered_ms: list[float]
    provisional_ms: list[float]


def main() -> None:
    """Fill, erase, look into the stores, write the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--erasures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="write no row to results.csv")
    parser.add_argument("--keep", type=Path, help="a directory for data and logs, which stay")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as made:
        folder = chosen.keep or Path(made)
        up, settings, url = _start(folder)
        try:
            began_s = time.monotonic()
            asyncio.run(fill(settings, chosen.people))
            _until(lambda: counted(settings) >= 2 * chosen.people)
            await_profiles(settings, pids_of(settings, range(chosen.people)))
            print(f"{chosen.people:,} people in {time.monotonic() - began_s:.0f} s")
            gone = random.Random(chosen.seed).sample(range(chosen.people), chosen.erasures)
            pids = pids_of(settings, gone)
            burst = erase_at_once(settings, url, gone)
            check(settings, gone, pids)
            broker = "trial" if settings.kafka.is_trial else "apache"
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
    for what, times_ms in (("202", burst.answered_ms), ("provisional", burst.provisional_ms)):
        p50, p99, most = percentiles(times_ms)
        print(f"request to {what}: p50 {p50} ms, p99 {p99} ms, max {most} ms")
    if not chosen.no_record:
        record(
            f"erasures, {chosen.erasures} at once over {chosen.people} profiles, request to "
            f"provisional certificate, {broker}",
            latencies_ms=burst.provisional_ms,
        )


def _start(folder: Path) -> tuple["subprocess.Popen[bytes]", Settings, str]:
    ready = folder / "ready.json"
    data = folder / "data"
    command = [sys.executable, "-m", "headwater", "up", "--data-dir", str(data), "--port", "0"]
    up = subprocess.Popen([*command, "--ready-file", str(ready)], stdout=subprocess.DEVNULL)
    try:
        _until(lambda: ready.exists() or up.poll() is not None)
        settings = load_settings(settings_file_of(Settings(data_dir=str(data))), {})
        return up, settings, str(json.loads(ready.read_text("utf-8"))["url"])
    except BaseException:
        up.terminate()
        up.wait(60)
        raise


def user(number: int) -> str:
    """The user id of a person of the benchmark."""
    return f"bench-{number}"


async def fill(settings: Settings, people: int) -> None:
    """Everybody has told a trait and bought something; all of it lies in events.collected."""
    collector = Collector.from_settings(settings)
    await collector.start()
    try:
        sender = Sender(sources_of(settings)[0], now_ms())
        for first in range(0, people, CALLS_AT_ONCE // 2):
            batch = range(first, min(first + CALLS_AT_ONCE // 2, people))
            calls: list[object] = [call for number in batch for call in _calls(number)]
            await collector.collect(Body(calls, None, None, None, True), sender, None, now_ms())
    finally:
        await collector.close()


def _calls(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    who = {"userId": user(number)}
    traits = {"name": f"Person {number}", "email": f"{number}@example.org"}
    order = {
        "campaign_id": f"c{number % CAMPAIGNS}",
        "order_id": f"o{number}",
        "total": "19.99",
        "currency": "EUR",
    }
    return (
        {**who, "messageId": f"i{number}", "type": "identify", "traits": traits},
        {
            **who,
            "messageId": f"o{number}",
            "type": "track",
            "event": "Order Completed",
            "properties": order,
        },
    )


def counted(settings: Settings) -> int:
    """Events that ClickHouse has counted."""
    with connect(settings) as client:
        rows = client.query("SELECT sum(records) FROM progress FINAL").result_rows
    return int(rows[0][0] or 0)


def pids_of(settings: Settings, numbers: Sequence[int]) -> list[str]:
    """In hex, of people who are known."""
    vault = Vault.from_settings(settings)
    try:
        found = [
            person
            for first in range(0, len(numbers), 10_000)
            for person in vault.resolve(
                [("user", user(number)) for number in numbers[first : first + 10_000]]
            )
        ]
        return [person.pid.hex() for person in found if isinstance(person, Person)]
    finally:
        vault.close()


def await_profiles(settings: Settings, pids: Sequence[str]) -> None:
    """Each of these people has a profile."""
    looks = ProfileLooks(settings)
    missing = list(pids)

    def is_done() -> bool:
        some, rest = missing[:10_000], missing[10_000:]
        found = looks.read(some)
        left = [pid for pid, of in zip(some, found, strict=True) if not of.has_profile]
        missing[:] = rest + left
        return not missing

    try:
        _until(is_done)
    finally:
        looks.close()


def erase_at_once(settings: Settings, url: str, numbers: Sequence[int]) -> Burst:
    """Everybody's erasure was asked for at one moment, and is provisional."""
    at = urlsplit(url)
    headers = {
        "Authorization": f"Bearer {settings.http.keys['privacy_officer']}",
        "Content-Type": "application/json",
    }
    own = threading.local()
    asked: SimpleQueue[str] = SimpleQueue()
    began_s = time.monotonic()

    def ask(number: int) -> float:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=WITHIN_S)
        body = orjson.dumps({"subject": f"user:{user(number)}", "reason": "withdrawn"})
        own.connection.request("POST", "/v1/erasures", body, headers)
        answer = own.connection.getresponse()
        told = answer.read()
        if answer.status != 202:
            raise SystemExit(f"an erasure was answered with {answer.status}")
        answered_ms = (time.monotonic() - began_s) * 1000
        asked.put(orjson.loads(told)["erasure_id"])
        return answered_ms

    with ThreadPoolExecutor(CONNECTIONS) as askers:
        answers = [askers.submit(ask, number) for number in numbers]
        provisional_ms = _await_provisional(settings, asked, len(numbers), began_s)
        return Burst([answer.result() for answer in answers], provisional_ms)


def _await_provisional(
    settings: Settings, asked: "SimpleQueue[str]", expected: int, began_s: float
) -> list[float]:
    store = ErasureStore.from_settings(settings)
    waiting: list[str] = []
    done_ms: list[float] = []
    try:
        while len(done_ms) < expected:
            if time.monotonic() - began_s > WITHIN_S:
                raise SystemExit(f"{len(done_ms)} of {expected} erasures are provisional")
            time.sleep(LOOK_EVERY_S)
            while not asked.empty():
                waiting.append(asked.get())
            kept = store.read(waiting)
            at_ms = (time.monotonic() - began_s) * 1000
            still = [
                id_
                for id_, each in zip(waiting, kept, strict=True)
                if not (each and each.erasure and each.erasure.status == "provisional")
            ]
            done_ms += [at_ms] * (len(waiting) - len(still))
            waiting = still
    finally:
        store.close()
    return done_ms


def check(settings: Settings, numbers: Sequence[int], pids: Sequence[str]) -> None:
    """Ends the benchmark unless every one of these people is gone and the counters are right."""
    vault, profiles = Vault.from_settings(settings), ProfileLooks(settings)
    try:
        known = sum(vault.lookup("user", user(number)) is not None for number in numbers)
        shown = sum(found.has_profile for found in profiles.read(pids))
    finally:
        profiles.close()
        vault.close()
    listed = ",".join(f"unhex('{pid}')" for pid in pids)
    with connect(settings) as client:
        sql = f"SELECT count() FROM facts WHERE campaign_id != '' AND pid IN ({listed})"
        facts = int(client.query(sql, settings={"max_query_size": 16_000_000}).result_rows[0][0])
    verdict = verify(settings, wait_s=60)
    print(f"left: {known} in the vault, {shown} profiles, {facts} facts; {verdict.lines()[0]}")
    if len(pids) != len(numbers) or known or shown or facts or not verdict.is_verified:
        raise SystemExit("an erased person is still there, or a counter differs")


def _until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > give_up_s:
            raise SystemExit("the benchmark did not finish in time")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
