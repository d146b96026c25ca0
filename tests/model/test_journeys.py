"""Do people get the messages about their carts that they should, and no other?

A month of a shop on real lanes (tests/model/shop_world.py), against a reference that knows what
happened (tests/model/cart_story.py): disorder, copies, late orders, withdrawals, erasures, and lanes
that die. `make test` runs small shops; HEADWATER_TEST_PEOPLE=10000 HEADWATER_TEST_SEED=1 a large one.
"""

import os
from collections import Counter

import pytest

from tests.model import runners

PEOPLE = int(os.environ.get("HEADWATER_TEST_PEOPLE", "80"))
SEEDS = [int(os.environ["HEADWATER_TEST_SEED"])] if "HEADWATER_TEST_SEED" in os.environ else [1, 2]


def test_messages_due_are_those_of_who_knows_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runners.journeys(monkeypatch, PEOPLE)
    met: Counter[str] = Counter()
    for seed in SEEDS:
        broken, world = run(seed)
        assert not broken, f"seed {seed} of {PEOPLE} people broke: {sorted(broken)[:5]}"
        met.update(world.met)
    # They are about something: of each kind there was some.
    wanted = {"message 1", "message 2", "message 3", "people with none", "ordered in time",
              "withdrew in time", "order came too late", "lanes opened again", "sent", "held",
              "not sent"}  # fmt: skip
    assert wanted <= met.keys(), wanted - met.keys()
