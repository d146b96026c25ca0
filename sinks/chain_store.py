"""Where does the hash chain of consents.changed lie, and who vouched for it when?

In ClickHouse: `consent_chain` has the head after every record, so that an audit can name the first
one that differs; `consent_heads` has those that were signed, which nobody can make up.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering, connect
from runtime.settings import Settings
from sinks.rules.chain import GENESIS, Head, SignedHead

_CHAIN = ("topic", "generation", "kp", "off", "head")
_HEADS = (
    "topic",
    "generation",
    "kp",
    "next_off",
    "head",
    "signed_at",
    "public_key",
    "signature",
)
_MINE = "topic = {topic:String} AND generation = {generation:UInt32}"


class ChainStore:
    """Of one topic and generation; for one thread. Raises StoreUnavailable or StoreRefused."""

    def __init__(self, settings: Settings) -> None:
        self.topic = settings.topic_names.consents
        self.generation = settings.kafka.generation
        self._client: Client = connect(settings)
        self._parameters = {"topic": self.topic, "generation": self.generation}

    def newest(self, partition: int) -> Head:
        """The head after the last record that was chained."""
        sql = (
            f"SELECT off, hex(head) FROM consent_chain WHERE {_MINE} AND kp = {{kp:UInt32}} "  # noqa: S608
            "ORDER BY off DESC LIMIT 1"
        )
        with answering("where the chain of consents stands"):
            rows = self._client.query(sql, self._parameters | {"kp": partition}).result_rows
        return Head(rows[0][0] + 1, bytes.fromhex(rows[0][1])) if rows else Head(0, GENESIS)

    def heads(self, partition: int, first: int, end: int) -> dict[int, bytes]:
        """Offset -> head after that record, of offsets from `first` until before `end`."""
        sql = (
            f"SELECT off, hex(head) FROM consent_chain FINAL WHERE {_MINE} AND kp = {{kp:UInt32}} "  # noqa: S608
            "AND off >= {first:UInt64} AND off < {end:UInt64}"
        )
        asked = self._parameters | {"kp": partition, "first": first, "end": end}
        with answering("for a part of the chain of consents"):
            rows = self._client.query(sql, asked).result_rows
        return {offset: bytes.fromhex(head) for offset, head in rows}

    def signed(self, partition: int) -> list[SignedHead]:
        """Every signed head, by the records that it covers."""
        sql = (
            "SELECT next_off, hex(head), toUnixTimestamp64Milli(signed_at), public_key, signature "  # noqa: S608
            f"FROM consent_heads WHERE {_MINE} AND kp = {{kp:UInt32}} ORDER BY next_off, signed_at"
        )
        with answering("for the signed heads of consents"):
            rows = self._client.query(sql, self._parameters | {"kp": partition}).result_rows
        return [
            SignedHead(Head(next_off, bytes.fromhex(head)), at_ms, key, signature)
            for next_off, head, at_ms, key, signature in rows
        ]

    def add(self, partition: int, heads: Sequence[tuple[int, bytes]]) -> None:
        """The heads are durable. Adding them again changes nothing."""
        rows = [(self.topic, self.generation, partition, off, head) for off, head in heads]
        with answering("an insert into the chain of consents"):
            self._client.insert("consent_chain", rows, column_names=_CHAIN)

    def add_signed(self, signed: Mapping[int, SignedHead]) -> None:
        """The signed heads, by partition, are durable."""
        rows = [
            (
                self.topic,
                self.generation,
                partition,
                each.head.next_offset,
                each.head.digest,
                datetime.fromtimestamp(each.signed_at_ms / 1000, UTC),
                each.public_key,
                each.signature,
            )
            for partition, each in signed.items()
        ]
        with answering("an insert of signed heads"):
            self._client.insert("consent_heads", rows, column_names=_HEADS)

    def close(self) -> None:
        """End the connection."""
        self._client.close()
