"""How does every record of consent become part of a chain that shows any later change?

The topic has several producers, so nobody but a reader in log order can chain it. The head after
each record goes to ClickHouse; it begins where the newest one there ends, so a crash or a
ClickHouse that went back costs nothing but reading again. Once a day, and as soon as there is
anything, each partition's head is signed: from then on not even whoever owns Kafka and ClickHouse
can change what came before without its showing (`headwater consent audit`).
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from runtime.clock import ClockMs, now_ms
from runtime.crash import crash
from runtime.log_reading import LogReading
from runtime.logs import get_logger
from runtime.retry import Stopped, retry_in_place
from runtime.sealing import load_secret
from runtime.settings import Settings
from runtime.signing import Signer
from schemas.errors import StoreRefused, StreamError
from schemas.topics import DAY_MS
from sinks.chain_store import ChainStore
from sinks.rules.chain import SignedHead, chain_on, statement_of

EVERY_S = 5.0

T = TypeVar("T")


def signer_of(settings: Settings) -> Signer | None:
    """Who signs heads: the key of `[consent] signing_key_file`; None without one.

    Raises SettingInvalid when the file is not one.
    """
    file = settings.consent.signing_key_file
    return Signer(load_secret(Path(file), "[consent] signing_key_file")) if file else None


class Ledger:
    """Chains what has come, and signs; for one thread. Raises StoreUnavailable or StoreRefused."""

    def __init__(
        self, settings: Settings, signer: Signer | None, *, clock: ClockMs = now_ms
    ) -> None:
        self._partitions = settings.kafka.partitions
        self._signer = signer
        self._clock = clock
        self._signed_on: dict[int, int] = {}
        """Partition -> number of the day (UTC) on which its head was signed last."""
        self._log = LogReading(settings, settings.topic_names.consents)
        self._store = ChainStore(settings)

    def step(self) -> int:
        """Everything that was on the log is chained, and signed if it is time; how much was new."""
        chained = sum(self._chain(partition) for partition in range(self._partitions))
        if self._signer is not None:
            self._sign(self._signer)
        return chained

    def close(self) -> None:
        """Give the connections back."""
        self._log.close()
        self._store.close()

    def _chain(self, partition: int) -> int:
        at = self._store.newest(partition)
        first, end = self._log.bounds(partition)
        where = f"{self._store.topic}[{partition}]"
        if at.next_offset > end:
            raise StoreRefused(
                f"{where} ends at offset {end}, but the ledger has it up to {at.next_offset}: the "
                "log went back. Restore it, or begin a new one: raise [kafka] generation"
            )
        if at.next_offset and at.next_offset < first:
            raise StoreRefused(
                f"{where} begins at offset {first}, but {at.next_offset} was the next to chain: "
                "records were deleted that were never chained"
            )
        digest = at.digest
        for records in self._log.read(partition, max(first, at.next_offset), end):
            heads = chain_on(digest, records)
            self._store.add(partition, heads)
            digest = heads[-1][1]
        return end - max(first, at.next_offset)

    def _sign(self, signer: Signer) -> None:
        now = self._clock()
        signed = {}
        for partition in range(self._partitions):
            if self._signed_on.get(partition) == now // DAY_MS:
                continue
            head = self._store.newest(partition)
            if not head.next_offset:
                continue
            before = self._store.signed(partition)
            self._signed_on[partition] = before[-1].signed_at_ms // DAY_MS if before else 0
            if self._signed_on[partition] == now // DAY_MS or (before and before[-1].head == head):
                continue
            statement = statement_of(
                self._store.topic, self._store.generation, partition, head, now
            )
            signed[partition] = SignedHead(head, now, signer.public_key, signer.sign(statement))
        if signed:
            self._store.add_signed(signed)
            get_logger().info("consent_heads_signed", partitions=len(signed))


def keep_ledger(settings: Settings, stop: threading.Event, *, clock: ClockMs = now_ms) -> None:
    """Chain and sign until `stop`; waits for stores that are away.

    A log that does not go on from the chain is told in the log, once, and looked at again: it is
    for a person to judge, and nothing else stops for it.
    """
    signer = signer_of(settings)
    if signer is None:
        get_logger().warning("consent_heads_not_signed", setting="[consent] signing_key_file")
    told = ""
    while not stop.is_set():
        try:
            ledger = _retry(lambda: Ledger(settings, signer, clock=clock), stop)
        except Stopped:
            return
        try:
            while not stop.is_set():
                _retry(ledger.step, stop)
                stop.wait(EVERY_S)
        except Stopped:
            return
        except StoreRefused as fault:
            if told != (told := str(fault)):
                get_logger().error("consent_ledger_stands", fault=told)
            stop.wait(EVERY_S)
        finally:
            ledger.close()


def start_ledger(settings: Settings, stop: threading.Event) -> None:
    """`keep_ledger` goes on in a thread of this process, which ends if the thread cannot go on."""

    def run() -> None:
        try:
            keep_ledger(settings, stop)
        except StreamError as fault:
            crash("the ledger of consents cannot be kept", fault=str(fault))
        except Exception as fault:  # a thread's death would be silent
            crash("the ledger of consents failed", fault=type(fault).__name__)

    threading.Thread(target=run, name="consent ledger", daemon=True).start()


def _retry(action: Callable[[], T], stop: threading.Event) -> T:
    return retry_in_place(action, what="chain consents", wait=stop.wait, stopped=stop.is_set)
