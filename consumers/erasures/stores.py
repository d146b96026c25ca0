"""Which stores may hold a person, and what is asked of each?

The engines behind these are `runtime/vault.py`, `profile_looks.py`, `fact_looks.py` and
`log_looks.py`; each is asked again at every look, and every step may be repeated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from consumers.erasures.fact_looks import FactsOf
from consumers.erasures.log_looks import Found
from consumers.erasures.profile_looks import ProfileOf
from consumers.rules.erasure import Horizons
from runtime.vault import Erased
from schemas.requests import ErasureRequested
from schemas.topics import Topics


class VaultLooks(Protocol):
    """What is needed of the vault."""

    def suppress_erased(self, erased: Sequence[Erased]) -> None: ...
    def remains_of(self, erased: Sequence[Erased]) -> list[int]: ...


class Profiles(Protocol):
    """What is needed of `ProfileLooks`."""

    def read(self, pids: Sequence[str]) -> list[ProfileOf]: ...
    def remove_marks(self, pids: Sequence[str]) -> None: ...


class Facts(Protocol):
    """What is needed of `FactLooks`."""

    def count(self, pids: Sequence[str]) -> dict[str, FactsOf]: ...
    def delete_facts(self, pids: Sequence[str]) -> None: ...
    def delete_all(self, pids: Sequence[str]) -> None: ...
    def rewrite(self) -> int: ...
    def old_parts(self, before_s: int) -> int: ...
    def statements_of(self, pid: str) -> int: ...


class Logs(Protocol):
    """What is needed of `LogLooks`."""

    def oldest_ms(self, topic: str, partitions: Sequence[int]) -> dict[int, int | None]: ...
    def values_at(
        self, topic: str, partition: int, offsets: Sequence[int]
    ) -> dict[int, bytes | None]: ...
    def of_keys(
        self, topic: str, partition: int, keys: Sequence[bytes]
    ) -> Mapping[bytes, Found]: ...


class Messages(Protocol):
    """What is needed of `MessageStore`."""

    def forget(self, pids: Sequence[bytes]) -> None: ...
    def remains_of(self, pids: Sequence[bytes]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a person may be; `tell`, which puts requests on erasures.requested, durably; and
    `rewrite_files`, after which Redis' files have nothing that was deleted (False: not allowed)."""

    vault: VaultLooks
    profiles: Profiles
    facts: Facts
    logs: Logs
    messages: Messages
    tell: Callable[[Sequence[ErasureRequested]], None]
    rewrite_files: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration says of erasures."""

    topics: Topics
    partitions: int
    generation: int
    horizons: Horizons
    rewrite_every_ms: int
    keeps_proof: bool
