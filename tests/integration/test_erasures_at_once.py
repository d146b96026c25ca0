"""Are many people who are erased at the same moment all gone, and does every number stay?

The benchmark of erasures (bench/erasures.py) in small, so that it is known to work.
"""

import asyncio
import random
from pathlib import Path

from bench.erasures import await_profiles, check, counted, erase_at_once, fill, pids_of
from runtime.clock import now_ms
from tests.erasing import house
from tests.waiting import eventually

PEOPLE = 2000
ERASURES = 50


def test_fifty_erasures_at_once_are_all_provisional_and_nobody_of_them_is_left(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path: Path
) -> None:
    gone = random.Random(5).sample(range(PEOPLE), ERASURES)
    with house(
        tmp_path,
        f"at-once-{now_ms()}",
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
    ) as home:
        asyncio.run(fill(home.settings, PEOPLE))
        with home.roles():
            eventually(lambda: counted(home.settings) >= 2 * PEOPLE, within_s=60)
            await_profiles(home.settings, pids_of(home.settings, range(PEOPLE)))
            pids = pids_of(home.settings, gone)
            burst = erase_at_once(home.settings, home.http.url, gone)
            check(home.settings, gone, pids)
    assert len(burst.answered_ms) == len(burst.provisional_ms) == ERASURES
    assert min(burst.provisional_ms) > min(burst.answered_ms)
