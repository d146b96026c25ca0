"""How does a test wait without guessing how long something takes?"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T | None], *, within_s: float = 30, every_s: float = 0.05
) -> T:
    """Return the first truthy answer of `condition`; fail with the last one after `within_s`.

    An AssertionError of the condition counts as "not yet" and is shown when time runs out.
    """
    until = time.monotonic() + within_s
    last: object = None
    while True:
        try:
            answer = condition()
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() >= until:
            raise AssertionError(f"not within {within_s} s; last: {last!r}")
        time.sleep(every_s)
