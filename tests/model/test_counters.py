"""Are counters exact in every order of reading, writing, dying, sleeping and losing?"""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.model import runners
from tests.model.counter_world import CounterWorld
from tests.model.faulty import FATES
from tests.model.schedules import BLOCKS, assert_none_breaks, seeds

SHARE = 6_000
RunSeed = Callable[[int], tuple[set[str], CounterWorld]]


@pytest.fixture
def run_seed(monkeypatch: pytest.MonkeyPatch) -> RunSeed:
    return runners.counters(monkeypatch)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_counters_are_exact_in_every_schedule(run_seed: RunSeed, block: int) -> None:
    assert_none_breaks(run_seed, seeds(SHARE, block), "counters")


def test_schedules_meet_what_they_are_about(run_seed: RunSeed) -> None:
    met: Counter[str] = Counter()
    for seed in range(300):
        world = run_seed(seed)[1]
        met.update(world.server.met)
        met.update(world.said)
    wanted = {
        *FATES,
        "went back",
        "kill",
        "join",
        "raise",
        "shut out",
        "cut",
        "refused",
        "tripwire",
        "retraction",
        "erasure",
        "link",
    }
    wanted |= {"progress_differs", "store_unavailable"}
    assert wanted <= met.keys(), wanted - met.keys()
