"""python -m tests.model lanes|counters|profiles|journeys FIRST END: run seeds; a broken one ends it.

Exit code 0 when every promise was kept, 3 when one was broken.
"""

import sys

import pytest

from tests.model import runners
from tests.model.schedules import describe


def main() -> int:
    model, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with pytest.MonkeyPatch.context() as patch:
        run = getattr(runners, model)(patch)
        for seed in range(first, end):
            broken, _ = run(seed)
            if broken:
                print(describe(seed, broken, model))
                return 3
    print(f"kept: {model} {first} {end}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
