"""Is a text shared, and does what is known of texts end?"""

import pytest

from streams.rules import texts


def test_equal_texts_become_one_object_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_MOST_SHARED", 10)
    shared = texts._Shared()
    made = ["".join(("spring", str(number % 3))) for number in range(9)]
    assert made[0] is not made[3]
    assert len({id(shared[each]) for each in made}) == 3
    for number in range(100):
        assert shared[f"autumn{number}"] == f"autumn{number}"
        assert len(shared) <= 10
