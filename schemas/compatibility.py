"""May these schemas follow those that were published before?

A log is read for years, so three things must hold for ever: an id means the schema that it meant
when it was given (its fingerprint is recorded beside it), every earlier version of a record can be
read as the current one (Avro 1.12, "Schema Resolution"), and an accepted event begins with the
bytes of the collected one, which the streams copy without reading them. And what is written now
says of every field what it holds of people (schemas/held.py).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from schemas.codec import VERSIONS, SchemaVersion
from schemas.held import ATTRIBUTES, fields_of

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
FINGERPRINT_CHARACTERS = 32
_SAID = frozenset({"doc", *ATTRIBUTES})


def check_schemas(
    versions: Sequence[SchemaVersion] = VERSIONS, fingerprints: Mapping[int, str] | None = None
) -> list[str]:
    """One line for each broken promise, saying what to do; empty when all hold.

    `fingerprints` is what was recorded, by id; None reads it from `ids.json`.
    """
    recorded = recorded_fingerprints() if fingerprints is None else fingerprints
    problems = list(_check_ids(versions, recorded))
    newest = {version.record: version for version in versions}
    for version in newest.values():
        problems += _check_classes(version)
    for version in versions:
        current = newest[version.record]
        if version is not current:
            problems += [
                f"{version.record}: id {version.id} cannot be read as id {current.id}: {why}"
                for why in incompatibilities(version.schema, current.schema)
            ]
    collected, accepted = newest.get("Collected"), newest.get("Accepted")
    if collected is not None and accepted is not None:
        problems += _check_beginning(collected.schema, accepted.schema)
    return problems


def fingerprint(schema: Mapping[str, Any]) -> str:
    """A short name of what the bytes of `schema` mean; what only people read does not count."""
    meaning = json.dumps(_without_docs(schema), separators=(",", ":"))
    return hashlib.sha256(meaning.encode()).hexdigest()[:FINGERPRINT_CHARACTERS]


def recorded_fingerprints() -> dict[int, str]:
    """Fingerprint by schema id, as committed in `ids.json`."""
    listed = json.loads((resources.files("schemas") / "ids.json").read_text("utf-8"))
    return {line["id"]: line.get("fingerprint", "") for line in listed}


def incompatibilities(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> list[str]:
    """Why a record of `writer` cannot be read as `reader`, one reason each; empty if it can."""
    return list(_compare(writer, reader, "$", _names(writer), _names(reader)))


def _check_ids(versions: Sequence[SchemaVersion], recorded: Mapping[int, str]) -> Iterator[str]:
    ids = [version.id for version in versions]
    if ids != sorted(set(ids)):
        yield "ids.json: ids must rise from line to line; the list only grows at its end"
    for version in versions:
        found, expected = fingerprint(version.schema), recorded.get(version.id)
        if not expected:
            yield f'ids.json: id {version.id} needs "fingerprint": "{found}"'
        elif found != expected:
            yield (
                f"{version.file}: id {version.id} no longer means what it meant "
                f"({found}, recorded {expected}); keep the old file under versions/ and give the "
                "new schema the next id"
            )
    for id_ in recorded.keys() - set(ids):
        yield f"ids.json: id {id_} was given once and must stay"


def _check_classes(version: SchemaVersion) -> Iterator[str]:
    for field in fields_of(version.schema):
        if not (field.data_class and field.purposes):
            yield (
                f'{version.file}: {field.name} needs a "class" (identifier, trait, behaviour or '
                'technical) and a "purpose": see schemas/held.py'
            )


def _check_beginning(collected: Mapping[str, Any], accepted: Mapping[str, Any]) -> list[str]:
    shared = len(collected["fields"])
    if _without_docs(accepted["fields"][:shared]) != _without_docs(collected["fields"]):
        return ["Accepted must begin with Collected's fields, in their order and types"]
    return []


def _without_docs(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without_docs(part) for key, part in schema.items() if key not in _SAID}
    if isinstance(schema, list):
        return [_without_docs(part) for part in schema]
    return schema


def _names(schema: Any) -> dict[str, Any]:
    """Named types within `schema`, by bare name."""
    if isinstance(schema, list):
        return {name: found for part in schema for name, found in _names(part).items()}
    if not isinstance(schema, Mapping):
        return {}
    names = {_bare(schema["name"]): schema} if "name" in schema and "type" in schema else {}
    for part in (*(field["type"] for field in schema.get("fields", ())), schema.get("items")):
        names |= _names(part)
    return names


def _bare(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _compare(
    writer: Any, reader: Any, path: str, writers: Mapping[str, Any], readers: Mapping[str, Any]
) -> Iterator[str]:
    if isinstance(writer, str):
        writer = writers.get(_bare(writer), writer)
    if isinstance(reader, str):
        reader = readers.get(_bare(reader), reader)
    again: Callable[[Any, Any, str], Iterator[str]] = lambda w, r, at: _compare(  # noqa: E731
        w, r, at, writers, readers
    )
    if isinstance(writer, list):
        for branch in writer:
            yield from again(branch, reader, path)
        return
    if isinstance(reader, list):
        if all(any(again(writer, branch, path)) for branch in reader):
            yield f"{path}: {_kind(writer)} is not among {[_kind(branch) for branch in reader]}"
        return
    kind, wanted = _kind(writer), _kind(reader)
    if kind != wanted:
        if wanted not in _PROMOTIONS.get(kind, ()):
            yield f"{path}: {kind} cannot be read as {wanted}"
    elif kind == "record":
        yield from _compare_fields(writer, reader, path, again)
    elif kind == "array":
        yield from again(writer["items"], reader["items"], f"{path}[]")
    elif kind == "fixed" and writer["size"] != reader["size"]:
        yield f"{path}: {writer['size']} bytes cannot be read as {reader['size']}"


def _compare_fields(
    writer: Any, reader: Any, path: str, again: Callable[[Any, Any, str], Iterator[str]]
) -> Iterator[str]:
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        at = f"{path}.{field['name']}"
        if field["name"] in written:
            yield from again(written[field["name"]]["type"], field["type"], at)
        elif "default" not in field:
            yield f"{at}: a new field needs a default"


def _kind(schema: Any) -> str:
    return str(schema["type"]) if isinstance(schema, Mapping) else str(schema)
