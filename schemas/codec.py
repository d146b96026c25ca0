"""How do records travel, and how are bytes that we did not expect told apart?

Confluent's wire format: a zero byte, the schema's id as four bytes (big endian), then the Avro
datum. Ids come from `ids.json`, a committed list that only grows: an id once given means the same
schema for ever, so that every log ever written stays readable (ADR 0005). A record of an older
version is read by fastavro with schema resolution; the current one by the compiled reader.
"""

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Generic, TypeVar

import fastavro
import msgspec

from schemas import (
    carts,
    events,
    identity,
    journeys,
    moves,
    requests,
    segment_records,
    subjects,
)
from schemas.compiled import Compiler, Reader, Writer

R = TypeVar("R", bound=msgspec.Struct)

MAGIC = 0
HEADER_BYTES = 5

STRUCTS: Mapping[str, type[msgspec.Struct]] = {
    cls.__name__: cls
    for cls in (
        events.SealedTrait,
        events.Collected,
        events.VisitChange,
        events.Accepted,
        events.Rejected,
        events.Retracted,
        events.CampaignSpan,
        events.CampaignOfEvent,
        events.Reattributed,
        subjects.Money,
        subjects.Trait,
        subjects.ClearTrait,
        subjects.Purchase,
        subjects.Circumstance,
        subjects.Consent,
        identity.Claim,
        subjects.Group,
        subjects.KinOf,
        subjects.Member,
        subjects.Subject,
        subjects.Position,
        subjects.Withheld,
        subjects.Cursor,
        subjects.Sightings,
        subjects.Parked,
        segment_records.SegmentsDefined,
        segment_records.SegmentChanged,
        segment_records.SegmentsInForce,
        requests.ConsentChanged,
        requests.ErasureRequested,
        requests.Erased,
        carts.CartLine,
        carts.CartChange,
        carts.JourneyState,
        journeys.JourneyDue,
        moves.Claimed,
        moves.Substate,
        moves.Moved,
        moves.Kin,
        moves.Linked,
    )
} | dict.fromkeys(("Spent", "Refunded", "Total"), subjects.Money)


class Malformed(Exception):
    """These bytes are not a record of the expected kind: an expected outcome, never a crash.

    `reason` is a short fixed name, `expected` says in words what belongs there and what to do.
    Neither holds a byte of the record.
    """

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(f"{reason}: {expected}")
        self.reason = reason
        self.expected = expected


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One line of ids.json with the schema it names."""

    id: int
    record: str
    file: str
    schema: Mapping[str, Any]


def load_versions() -> list[SchemaVersion]:
    """Every schema ever given an id, oldest first."""
    folder = resources.files("schemas")
    listed = json.loads((folder / "ids.json").read_text("utf-8"))
    return [
        SchemaVersion(
            line["id"],
            line["record"],
            line["file"],
            json.loads((folder / line["file"]).read_text("utf-8")),
        )
        for line in listed
    ]


VERSIONS = load_versions()


def _header(schema_id: int) -> bytes:
    return struct.pack(">bI", MAGIC, schema_id)


class Codec(Generic[R]):
    """Bytes of one record type and back. Instances are the constants at the end of this module."""

    def __init__(self, record: type[R]) -> None:
        self._name = record.__name__
        mine = [version for version in VERSIONS if version.record == self._name]
        current = mine[-1]
        compiler = Compiler(STRUCTS)
        self.schema_id = current.id
        self.header = _header(current.id)
        self.headers = tuple(_header(version.id) for version in mine)  # of every version
        self.schema = current.schema
        self._read: Reader = compiler.reader(current.schema)
        self.write_datum = compiler.writer(current.schema)
        self._compiler = compiler
        self._current = fastavro.parse_schema(dict(current.schema))
        self._older = {
            version.id: fastavro.parse_schema(dict(version.schema)) for version in mine[:-1]
        }
        self._record = record

    def part_writer(self, first: str, last: str) -> Writer:
        """A writer of the fields from `first` to `last`: for joining with bytes already known."""
        names = [field["name"] for field in self.schema["fields"]]
        part = slice(names.index(first), names.index(last) + 1)
        return self._compiler.writer(self.schema, part)

    def encode(self, record: R) -> bytes:
        """The framed bytes of a record."""
        return self.header + self.write_datum(record)

    def decode(self, value: bytes | None) -> R:
        """The record in `value`. Raises Malformed, and nothing else, on any other bytes."""
        if value is None:
            raise Malformed("null_value", f"expected a {self._name}, found a record without value")
        if value[:HEADER_BYTES] != self.header:
            return self._decode_other(value)
        try:
            record, end = self._read(value, HEADER_BYTES)
        except (IndexError, ValueError) as error:
            raise self._broken() from error
        if end != len(value):
            raise self._broken()
        return record  # type: ignore[no-any-return]

    def _broken(self) -> Malformed:
        return Malformed(
            "broken_avro",
            f"expected a whole {self._name}; the bytes end early, late or in disorder",
        )

    def _decode_other(self, value: bytes) -> R:
        if len(value) < HEADER_BYTES or value[0] != MAGIC:
            raise Malformed(
                "wrong_magic_byte",
                "expected Confluent's wire format: a zero byte and a 4-byte schema id",
            )
        (schema_id,) = struct.unpack_from(">I", value, 1)
        older = self._older.get(schema_id)
        if older is None:
            raise Malformed(
                "unknown_schema_id",
                f"expected a schema id of {self._name}: {sorted([*self._older, self.schema_id])}",
            )
        stream = io.BytesIO(value[HEADER_BYTES:])
        try:
            fields = fastavro.schemaless_reader(stream, older, self._current)
            if stream.read(1):
                raise self._broken()
            return msgspec.convert(fields, self._record, strict=False)
        except (EOFError, IndexError, ValueError, TypeError, OverflowError) as error:
            raise self._broken() from error


COLLECTED: Codec[events.Collected] = Codec(events.Collected)
ACCEPTED: Codec[events.Accepted] = Codec(events.Accepted)
REJECTED: Codec[events.Rejected] = Codec(events.Rejected)
RETRACTED: Codec[events.Retracted] = Codec(events.Retracted)
REATTRIBUTED: Codec[events.Reattributed] = Codec(events.Reattributed)
SUBJECT: Codec[subjects.Subject] = Codec(subjects.Subject)
CURSOR: Codec[subjects.Cursor] = Codec(subjects.Cursor)
SIGHTINGS: Codec[subjects.Sightings] = Codec(subjects.Sightings)
PARKED: Codec[subjects.Parked] = Codec(subjects.Parked)
CONSENT_CHANGED: Codec[requests.ConsentChanged] = Codec(requests.ConsentChanged)
ERASURE_REQUESTED: Codec[requests.ErasureRequested] = Codec(requests.ErasureRequested)
ERASED: Codec[requests.Erased] = Codec(requests.Erased)
JOURNEY_DUE: Codec[journeys.JourneyDue] = Codec(journeys.JourneyDue)
CLAIMED: Codec[moves.Claimed] = Codec(moves.Claimed)
MOVED: Codec[moves.Moved] = Codec(moves.Moved)
KIN: Codec[moves.Kin] = Codec(moves.Kin)
LINKED: Codec[moves.Linked] = Codec(moves.Linked)
SEGMENTS_DEFINED: Codec[segment_records.SegmentsDefined] = Codec(segment_records.SegmentsDefined)
SEGMENT_CHANGED: Codec[segment_records.SegmentChanged] = Codec(segment_records.SegmentChanged)
SEGMENTS_IN_FORCE: Codec[segment_records.SegmentsInForce] = Codec(segment_records.SegmentsInForce)
