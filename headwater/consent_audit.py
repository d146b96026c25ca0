"""Is every record of consent as it was when it was written?

The whole log is chained again from its beginning, and compared with what the ledger kept: with the
head after each record, which names the first that differs, and with every signed head, which cannot
be made up. Where retention took the beginning, the chain goes on from the ledger's head before it:
the signed heads after it tell whether that one is true.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from runtime.log_reading import LogReading
from runtime.settings import Settings
from runtime.signing import Signer
from schemas.errors import SettingInvalid
from sinks.chain_store import ChainStore
from sinks.consents_to_ledger import signer_of
from sinks.rules.chain import GENESIS, Raw, SignedHead, chain_on, statement_of


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the log is not what was chained or signed, and in which way."""

    partition: int
    offset: int
    what: str


@dataclass(slots=True)
class PartitionAudit:
    """What was found in one partition; `first` and `end` are offsets of the log."""

    partition: int
    first: int = 0
    end: int = 0
    chained: int = 0
    signed_heads: int = 0
    signed_until: int = 0
    signed_at_ms: int | None = None
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in all of the log."""

    topic: str
    key: str
    partitions: tuple[PartitionAudit, ...]

    @property
    def differences(self) -> list[Difference]:
        """The first of each partition that has one."""
        return [each.differences[0] for each in self.partitions if each.differences]

    @property
    def records(self) -> int:
        return sum(each.end - each.first for each in self.partitions)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "topic": self.topic,
            "holds": not self.differences,
            "public_key": self.key,
            "records": self.records,
            "partitions": [
                {
                    "partition": each.partition,
                    "first_offset": each.first,
                    "end_offset": each.end,
                    "chained_records": each.chained,
                    "signed_heads": each.signed_heads,
                    "signed_until_offset": each.signed_until,
                    "signed_at": _moment(each.signed_at_ms),
                }
                for each in self.partitions
            ],
            "differences": [
                {"partition": each.partition, "offset": each.offset, "what": each.what}
                for each in self.differences
            ],
        }

    def lines(self) -> list[str]:
        """For people; the verdict first."""
        if self.differences:
            return [
                f"{self.topic} is not what was recorded:",
                *(f"  [{d.partition}]@{d.offset}: {d.what}" for d in self.differences),
            ]
        signed = sum(max(0, each.signed_until - each.first) for each in self.partitions)
        heads = sum(each.signed_heads for each in self.partitions)
        return [
            f"The chain holds: {self.records:,} records of {self.topic} are as they were written.",
            f"{heads} signed heads (key {self.key}) cover {signed:,} of them; those since are "
            "signed within a day.",
        ]


def audit_consents(settings: Settings) -> Audit:
    """Read and compare everything. Raises StoreUnavailable, StoreRefused, SettingInvalid."""
    signer = signer_of(settings)
    if signer is None:
        raise SettingInvalid(
            "[consent] signing_key_file is not set; signed heads cannot be checked without it"
        )
    log = LogReading(settings, settings.topic_names.consents)
    store = ChainStore(settings)
    try:
        found = tuple(
            _Auditor(log, store, signer, partition).audit()
            for partition in range(settings.kafka.partitions)
        )
    finally:
        log.close()
        store.close()
    return Audit(settings.topic_names.consents, signer.public_key, found)


class _Auditor:
    """One partition's audit, which stops at the first difference."""

    def __init__(self, log: LogReading, store: ChainStore, signer: Signer, partition: int) -> None:
        self._log = log
        self._store = store
        self._signer = signer
        self._partition = partition
        self._found = PartitionAudit(partition)

    def audit(self) -> PartitionAudit:
        found = self._found
        # The store before the log: what is chained by now is on the log.
        chained_until = self._store.newest(self._partition).next_offset
        signed = self._store.signed(self._partition)
        found.first, found.end = self._log.bounds(self._partition)
        for each in signed:
            if not self._is_ours(each):
                self._differ(each.head.next_offset, "a signed head whose signature is not ours")
                return found
        digest = GENESIS
        if found.first:
            before = self._store.heads(self._partition, found.first - 1, found.first)
            digest = before.get(found.first - 1, GENESIS)
        waiting = [each for each in signed if each.head.next_offset > found.first]
        for records in self._log.read(self._partition, found.first, found.end):
            heads = chain_on(digest, records)
            digest = heads[-1][1]
            if not self._agrees(records, heads, chained_until):
                return found
            waiting = self._pass_signed(heads, waiting)
            if found.differences:
                return found
        if chained_until > found.end:
            self._differ(found.end, f"the log ends here, but was chained up to {chained_until}")
        elif waiting:
            self._differ(found.end, "the log ends here, but a later head was signed")
        return found

    def _is_ours(self, each: SignedHead) -> bool:
        statement = statement_of(
            self._store.topic,
            self._store.generation,
            self._partition,
            each.head,
            each.signed_at_ms,
        )
        return each.public_key == self._signer.public_key and self._signer.is_ours(
            statement, each.signature
        )

    def _agrees(
        self, records: list[Raw], heads: list[tuple[int, bytes]], chained_until: int
    ) -> bool:
        kept = self._store.heads(self._partition, records[0][0], records[-1][0] + 1)
        for offset, digest in heads:
            if offset >= chained_until:
                break
            known = kept.get(offset)
            if known is None:
                self._differ(offset, "a record that was never chained, or its head was removed")
                return False
            if known != digest:
                self._differ(offset, "this record, or one before it, is not as it was chained")
                return False
            self._found.chained += 1
        return True

    def _pass_signed(
        self, heads: list[tuple[int, bytes]], waiting: list[SignedHead]
    ) -> list[SignedHead]:
        """Compare the signed heads that these records reach; those that are still to come."""
        digests = dict(heads)
        last = heads[-1][0] + 1
        for each in waiting:
            if each.head.next_offset > last:
                break
            if digests.get(each.head.next_offset - 1) != each.head.digest:
                since = self._found.signed_until
                self._differ(
                    since, f"records from here until {each.head.next_offset} are not as signed"
                )
                return []
            self._found.signed_heads += 1
            self._found.signed_until = each.head.next_offset
            self._found.signed_at_ms = each.signed_at_ms
        return [each for each in waiting if each.head.next_offset > last]

    def _differ(self, offset: int, what: str) -> None:
        self._found.differences.append(Difference(self._partition, offset, what))


def _moment(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
