"""What passes between the transport and a lane?

A batch of records of one partition with the offsets it stands for, and what the transport may ask
of the lane that owns them. Neither side knows more of the other.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Batch:
    """Records of one partition as fetched: they stand for the offsets [from_offset, to_offset).

    Offsets without a record (control records, aborted ones) belong to the span. `epoch` is the
    assignment it was fetched under; a batch of an older one is dropped. `is_behind` says that the
    log had more than this when it was fetched.
    """

    __slots__ = (
        "epoch",
        "from_offset",
        "is_behind",
        "partition",
        "records",
        "to_offset",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        records: Sequence[Any],
        from_offset: int,
        to_offset: int,
        epoch: int,
        is_behind: bool = False,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.from_offset = from_offset
        self.to_offset = to_offset
        self.epoch = epoch
        self.is_behind = is_behind


class LaneLike(Protocol):
    """What the transport needs of a lane: partition p of every input topic."""

    next_offsets: dict[str, int]
    committed_offsets: dict[str, int]

    def open(self) -> None:
        """Fence, then rebuild; blocking, called in a thread of its own."""

    def start_at(self, topic: str, first_offset: int, end_offset: int) -> None:
        """Settle where reading of `topic` begins, given the log's range."""

    async def put(self, batch: Batch) -> None:
        """Take a batch to be applied after those before it; waits while there are too many."""

    async def run(self) -> None:
        """Apply and commit until closed."""

    async def close(self) -> None:
        """Commit what is applied, and let go."""


OpenLane = Callable[[int], LaneLike]
