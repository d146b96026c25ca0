"""Is every log ever written readable, and do our fast readers agree with fastavro?"""

import copy
import io
import struct
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import STRUCTS, VERSIONS, Codec, Malformed, SchemaVersion
from schemas.compatibility import (
    check_schemas,
    fingerprint,
    incompatibilities,
    recorded_fingerprints,
)

CODECS: list[Codec[Any]] = [
    codec.COLLECTED,
    codec.ACCEPTED,
    codec.REJECTED,
    codec.SUBJECT,
    codec.CURSOR,
    codec.SIGHTINGS,
    codec.PARKED,
    codec.CONSENT_CHANGED,
    codec.ERASURE_REQUESTED,
    codec.RETRACTED,
    codec.JOURNEY_DUE,
]
each_codec = pytest.mark.parametrize("each", CODECS, ids=lambda each: each.schema["name"])
LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)


def values_of(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Every value that fits an Avro schema, as plain data."""
    if isinstance(schema, str):
        schema = named.get(schema.rsplit(".", 1)[-1], schema)
    if isinstance(schema, list):
        return st.one_of([values_of(branch, named) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind in ("record", "fixed"):
        named[schema["name"]] = schema
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": INTS,
        "long": LONGS,
        "string": st.text(max_size=200),
        "bytes": st.binary(max_size=200),
    }
    if kind == "record":
        fields = {field["name"]: values_of(field["type"], named) for field in schema["fields"]}
        return st.fixed_dictionaries(fields)
    if kind == "array":
        return st.lists(values_of(schema["items"], named), max_size=4)
    if kind == "fixed":
        return st.binary(min_size=schema["size"], max_size=schema["size"])
    return simple[kind]


def fastavro_bytes(schema: Any, value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(copy.deepcopy(dict(schema))), value)
    return out.getvalue()


@each_codec
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_compiled_codec_equals_fastavro_both_ways(each: Codec[Any], data: st.DataObject) -> None:
    value = data.draw(values_of(each.schema, {}))
    record = msgspec.convert(value, STRUCTS[each.schema["name"]])
    framed = each.header + fastavro_bytes(each.schema, value)
    assert each.encode(record) == framed
    assert each.decode(framed) == record


@each_codec
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_cut_or_scrambled_bytes_are_malformed_and_nothing_worse(
    each: Codec[Any], data: st.DataObject
) -> None:
    value = data.draw(values_of(each.schema, {}))
    whole = bytearray(each.header + fastavro_bytes(each.schema, value))
    with pytest.raises(Malformed):
        each.decode(bytes(whole[: data.draw(st.integers(0, len(whole) - 1))]))
    with pytest.raises(Malformed):
        each.decode(bytes(whole) + b"\x00")
    for _ in range(3):
        whole[data.draw(st.integers(5, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        each.decode(bytes(whole))
    except Malformed as error:
        assert error.reason == "broken_avro"


@each_codec
def test_struct_mirrors_schema_field_by_field(each: Codec[Any]) -> None:
    def check(schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                check(branch)
        if not isinstance(schema, dict):
            return
        if schema["type"] == "record":
            names = tuple(field["name"] for field in schema["fields"])
            assert STRUCTS[schema["name"]].__struct_fields__ == names
            for field in schema["fields"]:
                assert field["doc"], f"{schema['name']}.{field['name']} needs unit and meaning"
                check(field["type"])
        elif "items" in schema:
            check(schema["items"])

    check(each.schema)


def test_committed_schemas_keep_their_promises() -> None:
    assert check_schemas() == []


def newest(record: str) -> SchemaVersion:
    return [version for version in VERSIONS if version.record == record][-1]


def changed(version: SchemaVersion, *, id_: int, **fields: Any) -> SchemaVersion:
    """The same schema under the next id, with fields added (a type), changed, or left out (None)."""
    kept = [field for field in version.schema["fields"] if field["name"] not in fields]
    classed = {"class": "technical", "purpose": "operation"}
    added = [{"name": name, **classed, **how} for name, how in fields.items() if how is not None]
    schema = {**version.schema, "fields": kept + added}
    return SchemaVersion(id_, version.record, f"versions/{id_}.avsc", schema)


def problems_with(version: SchemaVersion) -> list[str]:
    recorded = {**recorded_fingerprints(), version.id: fingerprint(version.schema)}
    return check_schemas([*VERSIONS, version], recorded)


def test_new_field_with_a_default_is_compatible() -> None:
    version = changed(newest("Rejected"), id_=99, hint={"type": "string", "default": ""})
    assert problems_with(version) == []


def test_new_field_without_a_default_is_refused() -> None:
    version = changed(newest("Rejected"), id_=99, hint={"type": "string"})
    assert problems_with(version) == [
        "Rejected: id 6 cannot be read as id 99: $.hint: a new field needs a default"
    ]


def test_changed_type_is_refused() -> None:
    version = changed(newest("Rejected"), id_=99, rejected_at_ms={"type": "string"})
    assert any("long cannot be read as string" in line for line in problems_with(version))


def test_optional_field_may_not_become_required() -> None:
    version = changed(newest("Rejected"), id_=99, topic={"type": "string"})
    assert any("$.topic: null cannot be read as string" in line for line in problems_with(version))


def test_required_field_may_become_optional() -> None:
    version = changed(newest("Rejected"), id_=99, stage={"type": ["null", "string"]})
    assert problems_with(version) == []


def test_changed_size_within_an_array_is_refused() -> None:
    older = newest("Subject").schema
    newer = copy.deepcopy(dict(older))
    traits = next(field for field in newer["fields"] if field["name"] == "traits")
    traits["type"]["items"]["fields"][0]["type"]["size"] = 16
    assert incompatibilities(older, newer) == ["$.traits[].key: 8 bytes cannot be read as 16"]


def test_given_id_may_not_change_its_meaning_or_vanish() -> None:
    first, *others = VERSIONS
    bent = changed(first, id_=first.id, flags={"type": "long", "default": 0})
    assert any("no longer means" in line for line in check_schemas([bent, *others]))
    assert any("must stay" in line for line in check_schemas(others))
    assert any("must rise" in line for line in check_schemas([*others, first]))
    unrecorded = changed(newest("Rejected"), id_=99)
    assert any('needs "fingerprint"' in line for line in check_schemas([*VERSIONS, unrecorded]))


def test_a_field_must_say_what_it_holds_of_people() -> None:
    for lacking in ({"class": ""}, {"class": "personal"}, {"purpose": ""}):
        hint = {"type": "string", "default": "", **lacking}
        version = changed(newest("Rejected"), id_=99, hint=hint)
        assert [line for line in problems_with(version) if "versions/99.avsc: hint needs" in line]


def test_what_a_field_holds_may_be_said_otherwise() -> None:
    version = newest("Rejected")
    fields = [field | {"class": "trait", "sealed": True} for field in version.schema["fields"]]
    assert fingerprint({**version.schema, "fields": fields}) == fingerprint(version.schema)


def test_documentation_may_change_freely() -> None:
    version = newest("Rejected")
    assert fingerprint({**version.schema, "doc": "Said better."}) == fingerprint(version.schema)


def test_accepted_must_begin_with_collected() -> None:
    version = changed(newest("Collected"), id_=99, hint={"type": "string", "default": ""})
    assert any("must begin with Collected" in line for line in problems_with(version))


def test_record_of_an_earlier_version_is_read_as_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current = newest("Rejected")
    older = changed(current, id_=1, index=None, seq=None)
    monkeypatch.setattr(codec, "VERSIONS", [older, current])
    value = {
        "stage": "streams",
        "topic": "events.collected",
        "partition": 3,
        "offset": 88214,
        "path": "$.properties.total",
        "reason": "wrong_type",
        "expected": "expected a number",
        "rejected_at_ms": 1_700_000_000_000,
        "generation": 1,
        "lane": 3,
    }
    framed = struct.pack(">bI", 0, 1) + fastavro_bytes(older.schema, value)
    read = Codec(STRUCTS["Rejected"]).decode(framed)
    absent = {"source": None, "message_id": None, "seq": None, "index": None}
    assert msgspec.to_builtins(read) == {**value, **absent}


@each_codec
def test_every_earlier_version_of_every_record_is_readable(each: Codec[Any]) -> None:
    for version in VERSIONS:
        if version.record == each.schema["name"]:
            assert incompatibilities(version.schema, each.schema) == []
