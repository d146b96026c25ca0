"""Which object stands for a text that many people have?

People keep campaigns and currencies with each of their visits, touches and orders. One object for
all of them is memory that was touched a moment ago (ADR 0031), and its hash is known. `sys.intern`
would do, but in Python 3.12 what it knows stays for ever, and whoever sends events chooses texts.
"""

from collections.abc import Mapping
from typing import Final

from schemas.remembered import Remembered

SHARED: Final[Mapping[str, str]] = Remembered(str)
"""The text, as the object that others who ask for it are given too."""
