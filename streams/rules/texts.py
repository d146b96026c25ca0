"""Which object stands for a text that many people have?

People keep campaigns and currencies with each of their visits, touches and orders. One object for
all of them is memory that was touched a moment ago (ADR 0031), and its hash is known. `sys.intern`
would do, but in Python 3.12 what it knows stays for ever, and whoever sends events chooses texts.
"""

from collections.abc import Mapping
from typing import Final

_MOST_SHARED = 50_000


class _Shared(dict[str, str]):
    def __missing__(self, text: str) -> str:
        if len(self) >= _MOST_SHARED:
            self.clear()
        self[text] = text
        return text


SHARED: Final[Mapping[str, str]] = _Shared()
"""The text, as the object that others who ask for it are given too."""
