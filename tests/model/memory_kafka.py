"""What does a Kafka do, as far as Headwater relies on it?

Logs whose control records take offsets, transactions that are decided first and marked later,
owners fenced by their epoch, committed reads that end where the oldest open transaction begins, and
requests that land late (librdkafka lacks KIP-890: one that was repeated may end the transaction
after the one it was sent for). tests/contracts/test_memory_kafka.py holds it equal to a real one.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field


class Died(BaseException):
    """The process that made the call has ended: nothing of it may handle this."""


class Fenced(Exception):
    """The caller's epoch is not the newest of its transactional id."""


class Clock:
    """The time of everything in a model; moved by whoever would have waited."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = time = monotonic


class Transaction:
    """`outcome` is None while it is open; its records count once `is_marked`."""

    __slots__ = ("is_marked", "outcome", "touched")

    def __init__(self) -> None:
        self.outcome: str | None = None
        self.is_marked = False
        self.touched: dict[tuple[str, int], None] = {}


Record = tuple[bytes | None, bytes | None]
"""(key, value)"""


class Partition:
    """One log: (record or None for a control record, its transaction or None) by offset."""

    __slots__ = ("entries", "first", "unmarked")

    def __init__(self) -> None:
        self.entries: list[tuple[Record | None, Transaction | None]] = []
        self.first = 0
        self.unmarked: dict[Transaction, int] = {}

    def append(self, record: Record | None, transaction: Transaction | None = None) -> int:
        at = len(self.entries)
        if transaction is not None and record is not None and transaction not in self.unmarked:
            self.unmarked[transaction] = at
        self.entries.append((record, transaction))
        return at

    def stable_end(self) -> int:
        """Committed reads end here: where the oldest transaction without its mark begins."""
        return min(self.unmarked.values(), default=len(self.entries))

    def read(
        self, position: int, to: int, *, is_committed: bool
    ) -> list[tuple[int, bytes | None, bytes | None]]:
        """(offset, key, value) of what a reader is given of the offsets [position, to)."""
        return [
            (at, *record)
            for at, (record, transaction) in enumerate(self.entries[position:to], position)
            if record is not None
            and not (is_committed and transaction is not None and transaction.outcome == "abort")
        ]

    def cut(self, end: int) -> None:
        """The log lost what it had from `end` on."""
        del self.entries[end:]
        self.unmarked = {each: at for each, at in self.unmarked.items() if at < end}


@dataclass(slots=True)
class Owner:
    """Of one transactional id: the newest epoch, and the transaction under way."""

    epoch: int = 0
    transaction: Transaction | None = None


@dataclass(slots=True)
class Group:
    """A consumer group: who is in it, and who has which partitions of its topic."""

    partitions: int
    members: list[object] = field(default_factory=list)
    generation: int = 0

    def partitions_of(self, member: object) -> list[int]:
        """None of them, if it is no member any more."""
        if member not in self.members:
            return []
        at, count = self.members.index(member), len(self.members)
        return [p for p in range(self.partitions) if p % count == at]


class MemoryKafka:
    """A broker. `pause` is called where other processes may act; `fate` decides about a call."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.logs: dict[tuple[str, int], Partition] = defaultdict(Partition)
        self.owners: dict[str, Owner] = defaultdict(Owner)
        self.groups: dict[str, Group] = {}
        self.group_offsets: dict[tuple[str, str, int], int] = {}
        self.decided: list[Transaction] = []
        self.late_requests: list[tuple[str, int]] = []  # to end the transaction of (id, epoch)
        self.clock = Clock()
        self.pause: Callable[[str], None] = lambda _point: None
        self.fate: Callable[[str], str] = lambda _call: ""
        self.take: Callable[[int], int] = lambda most: most  # how much of `most` at once

    # -- the transaction coordinator

    def fence(self, transactional_id: str) -> int:
        """The new epoch of the id: older ones are shut out, what they left open is aborted."""
        owner = self.owners[transactional_id]
        self._finish(owner, "abort")
        owner.epoch += 1
        return owner.epoch

    def write(self, transactional_id: str, epoch: int, at: tuple[str, int], record: Record) -> None:
        """Append a record to the transaction of the id, which begins with its first record."""
        owner = self._owner(transactional_id, epoch)
        if owner.transaction is None or owner.transaction.outcome is not None:
            self._finish(owner, "abort")  # decided already: the next one waits for its marks
            owner.transaction = Transaction()
        owner.transaction.touched[at] = None
        self.logs[at].append(record, owner.transaction)

    def end(self, transactional_id: str, epoch: int, outcome: str) -> None:
        """Decide the transaction under way, whichever it is; again, or without one: no change."""
        transaction = self._owner(transactional_id, epoch).transaction
        if transaction is not None and transaction.outcome is None:
            transaction.outcome = outcome
            self.decided.append(transaction)

    def time_out(self, transactional_id: str) -> None:
        """The coordinator loses patience with an open transaction, and shuts its owner out."""
        owner = self.owners[transactional_id]
        if owner.transaction is not None and owner.transaction.outcome is None:
            self._finish(owner, "abort")
            owner.epoch += 1

    def mark(self, transaction: Transaction) -> None:
        """Write the marks of a decided transaction: from now on readers pass it."""
        for at in transaction.touched:
            log = self.logs[at]
            log.unmarked.pop(transaction, None)
            log.append(None, transaction)
        transaction.is_marked = True
        self.decided.remove(transaction)

    def land(self, request: tuple[str, int]) -> None:
        """A request to commit that was under way for long arrives."""
        self.late_requests.remove(request)
        try:
            self.end(*request, "commit")
        except Fenced:
            return

    def settle(self) -> None:
        """Nothing is under way any more."""
        while self.late_requests:
            self.land(self.late_requests[0])
        while self.decided:
            self.mark(self.decided[0])

    def _owner(self, transactional_id: str, epoch: int) -> Owner:
        owner = self.owners[transactional_id]
        if owner.epoch != epoch:
            raise Fenced
        return owner

    def _finish(self, owner: Owner, outcome: str) -> None:
        transaction, owner.transaction = owner.transaction, None
        if transaction is None:
            return
        if transaction.outcome is None:
            transaction.outcome = outcome
            self.decided.append(transaction)
        if not transaction.is_marked:
            self.mark(transaction)

    # -- groups

    def join(self, group: str, member: object) -> Group:
        found = self.groups.setdefault(group, Group(self.partitions))
        found.members.append(member)
        found.generation += 1
        return found

    def leave(self, group: str, member: object) -> None:
        """It went, or was not heard of for too long."""
        found = self.groups[group]
        if member in found.members:
            found.members.remove(member)
            found.generation += 1
