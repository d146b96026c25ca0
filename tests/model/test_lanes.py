"""Are lanes exact in every order of arriving, applying, committing, dying and being replaced?

tests/model/lane_world.py is what may happen, tests/model/recount.py what must hold when it is over.
That the schedules can fail is shown by tests/faults/test_mutants.py.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from streams import lane as lane_module
from tests.model.lane_world import COMMIT_FATES, LaneWorld
from tests.model.memory_clients import memory_clients
from tests.model.memory_kafka import MemoryKafka, Owner
from tests.model.recount import broken_promises
from tests.model.schedules import BLOCKS, assert_none_breaks, seeds
from tests.model.virtual_loop import VirtualLoop

SHARE = 5_000
RunSeed = Callable[..., tuple[set[str], LaneWorld]]


@pytest.fixture
def run_seed(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunSeed]:
    """Runs one schedule; the promises that it broke, and the world it was."""
    world: list[LaneWorld] = []
    monkeypatch.setattr(lane_module, "crash", lambda why, **where: world[0].crash(why, **where))
    monkeypatch.setattr(lane_module, "RECORDS_A_SLICE", 3)
    use = memory_clients(monkeypatch)
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _loop, _context: None)  # coroutines of dead processes

    def run(
        seed: int, kafka_of: Callable[[int], MemoryKafka] = MemoryKafka
    ) -> tuple[set[str], LaneWorld]:
        kafka = kafka_of(1 + seed % 2)
        use(kafka)
        world[:] = [LaneWorld(seed, loop, kafka)]
        wrong = loop.run_until_complete(world[0].run())
        return wrong | broken_promises(kafka, world[0].arrivals), world[0]

    yield run
    loop.close()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_lanes_are_exact_in_every_schedule(run_seed: RunSeed, block: int) -> None:
    assert_none_breaks(
        lambda seed: run_seed(seed)[0], seeds(SHARE, block), "tests/model/test_lanes.py"
    )


def test_schedules_meet_what_they_are_about(run_seed: RunSeed) -> None:
    met: Counter[str] = Counter()
    for seed in range(400):
        met.update(run_seed(seed)[1].met)
    wanted = {f"commit {fate}" for fate in COMMIT_FATES} | {
        "fence dies", "fence unanswered", "produce full", "timed out", "kills", "rebalances",
        "zombies", "cuts", "refused",
    }  # fmt: skip
    assert wanted <= met.keys(), wanted - met.keys()
    assert met["owners"] > 1_000
    assert met["commit failed"] > 200


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
    run_seed: RunSeed, worse: Callable[[int], MemoryKafka]
) -> None:
    found: Counter[str] = Counter()
    for seed in range(60):
        found.update(run_seed(seed, worse)[0])
    assert found.keys() & {"accepted twice", "outputs without their cursor"}, found
