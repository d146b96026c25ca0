"""Which seeds do the models run, and how does one repeat a seed that found something?

`make test` runs 20,000 schedules in all. HEADWATER_TEST_SCHEDULES=1000000 runs so many instead, with
each model's share; HEADWATER_TEST_SEED=123 runs that seed alone.
"""

import os
from collections.abc import Callable

IN_ALL = 20_000
BLOCKS = 4
"""Each model's seeds are several tests, so that several may run at once."""


def seeds(share: int, block: int) -> range:
    """The seeds of `block`, of a model that has `share` of all schedules."""
    if "HEADWATER_TEST_SEED" in os.environ:
        seed = int(os.environ["HEADWATER_TEST_SEED"])
        return range(seed, seed + (block == 0))
    wanted = int(os.environ.get("HEADWATER_TEST_SCHEDULES", IN_ALL)) * share // IN_ALL
    return range(block * wanted // BLOCKS, (block + 1) * wanted // BLOCKS)


def describe(seed: int, broken: set[str], model: str) -> str:
    """Which promises a schedule broke, and how to see it again."""
    return (
        f"seed {seed} broke: {', '.join(sorted(broken))}. "
        f"Repeat it: HEADWATER_TEST_SEED={seed} pytest tests/model/test_{model.removesuffix('_sent')}.py"
    )


def assert_none_breaks(
    run: Callable[[int], tuple[set[str], object]], which: range, model: str
) -> None:
    """Every seed of `which` keeps every promise; the first that does not is named."""
    for seed in which:
        broken, _ = run(seed)
        assert not broken, describe(seed, broken, model)
