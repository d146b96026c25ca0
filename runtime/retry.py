"""How does a role wait for a store that is away, without losing its place or its patience?"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from runtime.logs import get_logger
from runtime.metrics import gauge
from runtime.signs import STORE, give_sign
from schemas.errors import StoreUnavailable

T = TypeVar("T")

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
SLOW_S = 2.0
"""An answer that took so long is a sign of life (runtime/signs.py), as is every refusal to answer.
Quicker ones are not: they would hide a partition where nothing moves behind those that do."""


class Stopped(Exception):
    """The role was asked to end while it waited: nothing of the work in hand is claimed."""


def retry_in_place(
    action: Callable[[], T],
    *,
    what: str,
    wait: Callable[[float], object],
    stopped: Callable[[], bool],
) -> T:
    """The answer of `action`, asked again for ever while it raises StoreUnavailable.

    `wait` is given the seconds to wait, rising to 5, and may do something meanwhile (keep a
    membership alive). Raises Stopped once `stopped()` is true between two tries.
    """
    tries = 0
    began_s = time.monotonic()
    waiting = gauge("headwater_waiting_for_store_seconds").labels(what)
    while True:
        try_began_s = time.monotonic()
        try:
            answer = action()
        except StoreUnavailable as error:
            give_sign(STORE)
            waiting.set(time.monotonic() - began_s)
            if stopped():
                raise Stopped from error
            tries += 1
            # First, then each time that the number of tries doubles: a night is twenty lines.
            if tries & (tries - 1) == 0:
                get_logger().warning("store_unavailable", doing=what, tries=tries, fault=str(error))
            longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(tries, 10))
            wait(longest_s * random.uniform(0.5, 1.0))
        else:
            if time.monotonic() - try_began_s > SLOW_S:
                give_sign(STORE)
            if tries:
                waiting.set(0)
                get_logger().info("store_available_again", doing=what, tries=tries)
            return answer
