"""Is a text shared, and does what is known of texts end?"""

from schemas.remembered import Remembered
from streams.rules.texts import SHARED


def test_equal_texts_become_one_object_and_not_for_ever() -> None:
    made = ["".join(("spring", str(number % 3))) for number in range(9)]
    assert made[0] is not made[3]
    assert len({id(SHARED[each]) for each in made}) == 3
    shared = Remembered(str, 10)
    assert len({id(shared[each]) for each in made}) == 3
    for number in range(100):
        assert shared[f"autumn{number}"] == f"autumn{number}"
        assert len(shared) <= 10
