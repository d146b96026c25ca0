"""Are lanes exact in every order of arriving, applying, committing, dying and being replaced?

In two of five schedules pids turn out to be one person, and apart again (ADR 0018).

tests/model/lane_world.py is what may happen, tests/model/recount.py what must hold when it is over.
That the schedules can fail is shown by tests/faults/test_mutants.py.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from tests.model import runners
from tests.model.lane_world import COMMIT_FATES, LaneWorld
from tests.model.memory_kafka import MemoryKafka, Owner
from tests.model.schedules import BLOCKS, assert_none_breaks, seeds

SHARE = 5_000
RunSeed = Callable[[int], tuple[set[str], LaneWorld]]


@pytest.fixture
def run_seed(monkeypatch: pytest.MonkeyPatch) -> RunSeed:
    return runners.lanes(monkeypatch)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_lanes_are_exact_in_every_schedule(run_seed: RunSeed, block: int) -> None:
    assert_none_breaks(run_seed, seeds(SHARE, block), "lanes")


def test_schedules_meet_what_they_are_about(run_seed: RunSeed) -> None:
    met: Counter[str] = Counter()
    for seed in range(600):
        world = run_seed(seed)[1]
        met.update(world.met)
        met["claims"] += len(world.arrivals.claims)
    wanted = {f"commit {fate}" for fate in COMMIT_FATES} | {
        "fence dies", "fence unanswered", "produce full", "timed out", "kills", "rebalances",
        "zombies", "cuts", "refused",
    }  # fmt: skip
    assert wanted <= met.keys(), wanted - met.keys()
    assert met["owners"] > 1_000
    assert met["commit failed"] > 200
    assert met["claims"] > 1_000


class WithoutFencing(MemoryKafka):
    """Any epoch may write."""

    def _owner(self, transactional_id: str, _epoch: int) -> Owner:
        return self.owners[transactional_id]


class ShowsWhatWasAborted(MemoryKafka):
    """Takes nothing back."""

    def fence(self, transactional_id: str) -> int:
        owner = self.owners[transactional_id]
        self._finish(owner, "commit")
        owner.epoch += 1
        return owner.epoch


@pytest.mark.parametrize("worse", [WithoutFencing, ShowsWhatWasAborted])
def test_recount_sees_what_a_worse_log_would_do(
    monkeypatch: pytest.MonkeyPatch, worse: Callable[[int], MemoryKafka]
) -> None:
    run_seed = runners.lanes(monkeypatch, worse)
    found: Counter[str] = Counter()
    for seed in range(60):
        found.update(run_seed(seed)[0])
    assert found.keys() & {"accepted twice", "outputs without their cursor"}, found
