"""What does a record on the log, or one that Redis keeps, say?

Read without the product: Confluent's wire format (a zero byte, the schema's id, an Avro datum), by
the committed schemas. Of whatever version a record is, its id names the schema that it was written
by. https://avro.apache.org/docs/1.11.1/specification/#binary_encoding
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parents[2] / "schemas"
HEADER_BYTES = 5


def decode(value: bytes) -> dict[str, Any]:
    """The fields of one record, and its name as `record`. Raises ValueError for anything else."""
    if len(value) < HEADER_BYTES or value[0]:
        raise ValueError(f"no record: {value[:16].hex()}")
    name, schema, named = _schema(int.from_bytes(value[1:HEADER_BYTES], "big"))
    reader = _Reader(value, named)
    found = {"record": name, **reader.read(schema)}
    if reader.at != len(value):
        raise ValueError(f"{name}: {len(value) - reader.at} bytes too many")
    return found


@cache
def _schema(id_: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    ids = {each["id"]: each for each in json.loads((SCHEMAS / "ids.json").read_text("utf-8"))}
    schema = json.loads((SCHEMAS / ids[id_]["file"]).read_text("utf-8"))
    named: dict[str, Any] = {}
    _name(schema, named)
    return ids[id_]["record"], schema, named


def _name(schema: Any, named: dict[str, Any]) -> None:
    """`named` has every type that the schema defines and may name again."""
    if isinstance(schema, list):
        for each in schema:
            _name(each, named)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "fixed"):
            named[schema["name"]] = named[f"headwater.{schema['name']}"] = schema
        for each in schema.get("fields", ()):
            _name(each["type"], named)
        _name(schema.get("items", ""), named)


class _Reader:
    """A datum, read from its beginning on."""

    def __init__(self, value: bytes, named: dict[str, Any]) -> None:
        self._value, self._named = value, named
        self.at = HEADER_BYTES

    def read(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return self.read(schema[self._number()])
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "record":
            return {each["name"]: self.read(each["type"]) for each in schema["fields"]}
        if kind == "array":
            return self._array(schema["items"])
        if kind == "fixed":
            return self._take(schema["size"])
        if kind in ("bytes", "string"):
            found = self._take(self._number())
            return found.decode() if kind == "string" else found
        if kind in ("int", "long"):
            return self._number()
        if kind == "boolean":
            return self._take(1) == b"\x01"
        if kind == "null":
            return None
        return self.read(self._named[kind])

    def _array(self, items: Any) -> list[Any]:
        found: list[Any] = []
        while count := self._number():
            if count < 0:
                self._number()  # its size in bytes
            found += [self.read(items) for _ in range(abs(count))]
        return found

    def _take(self, size: int) -> bytes:
        taken = self._value[self.at : self.at + size]
        if len(taken) != size:
            raise ValueError("a record that ends too soon")
        self.at += size
        return taken

    def _number(self) -> int:
        shift = folded = 0
        while True:
            byte = self._value[self.at]
            self.at += 1
            folded |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (folded >> 1) ^ -(folded & 1)
