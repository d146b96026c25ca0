"""What was made of a text once, and is asked for again and again?

Whoever sends events chooses the texts, so what is remembered has a bound: past it all is forgotten,
and what is asked for again is made again.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")
MOST_REMEMBERED = 50_000


class Remembered(dict[str, V], Generic[V]):
    """What `make` answers for a text, made when first asked for; at most so many."""

    __slots__ = ("_make", "_most")

    def __init__(self, make: Callable[[str], V], most: int = MOST_REMEMBERED) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, text: str) -> V:
        if len(self) >= self._most:
            self.clear()
        made = self[text] = self._make(text)
        return made
