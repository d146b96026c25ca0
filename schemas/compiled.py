"""How do Avro bytes and frozen structs become each other quickly in CPython?

fastavro walks the schema for every record and gives dictionaries: 8 µs to read and 10 µs to write
a collected event on the machine of ADR 0005. This module walks it once and writes the Python that
a patient person would: one straight function a record, 2-3 µs. It knows what our schemas use
(null unions, records, arrays, fixed, bytes, string, int, long, boolean) and refuses the rest.
Tests hold every record equal to fastavro, byte for byte and value for value.
"""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.varints import HIGH_OF_TIME, SHORT, read_long, read_size, read_time, write_long

Reader = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, start) -> (struct, index after it). May raise IndexError, ValueError on bad bytes."""

Writer = Callable[[Any], bytes]


class _Source:
    """Lines of a function under construction."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names = 0

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def add(self, depth: int, line: str) -> None:
        self.lines.append("    " * depth + line)


class Compiler:
    """Turns parsed Avro schemas into functions; `structs` maps a record's name to its class."""

    def __init__(self, structs: Mapping[str, type]) -> None:
        self._structs = structs
        self._named: dict[str, Any] = {}

    def _learn(self, schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._learn(branch)
        elif isinstance(schema, dict):
            if schema["type"] in ("record", "fixed"):
                self._named[schema["name"].rsplit(".", 1)[-1]] = schema
            for field in schema.get("fields", ()):
                self._learn(field["type"])
            if "items" in schema:
                self._learn(schema["items"])

    def _resolve(self, schema: Any) -> Any:
        if isinstance(schema, str):
            return self._named.get(schema.rsplit(".", 1)[-1], schema)
        return schema

    # -- reading

    def reader(self, schema: Mapping[str, Any]) -> Reader:
        """A function that reads one record of `schema`."""
        self._learn(schema)
        source = _Source()
        source.add(0, "def read(v, i):")
        result = self._read(source, 1, schema)
        source.add(1, f"return {result}, i")
        scope: dict[str, Any] = {
            "read_long": read_long,
            "read_size": read_size,
            "read_time": read_time,
            "high_of_time": HIGH_OF_TIME,
            "short_of_five": bytes(5),
            **{f"new_{name}": cls for name, cls in self._structs.items()},
        }
        exec("\n".join(source.lines), scope)  # noqa: S102  generated from our own committed schemas
        reader: Reader = scope["read"]
        return reader

    def _read(self, out: _Source, depth: int, schema: Any, name: str = "") -> str:
        """Write the lines that read `schema`, of the field `name`; the variable that holds it."""
        schema = self._resolve(schema)
        x = out.fresh("x")
        if isinstance(schema, list):
            self._nullable(schema)
            out.add(depth, "if v[i] == 0:")
            out.add(depth + 1, f"i += 1; {x} = None")
            out.add(depth, "elif v[i] == 2:")
            out.add(depth + 1, "i += 1")
            inner = self._read(out, depth + 1, schema[1], name)
            out.add(depth + 1, f"{x} = {inner}")
            out.add(depth, "else:")
            out.add(depth + 1, "raise ValueError('a union branch that does not exist')")
            return x
        kind = schema["type"] if isinstance(schema, dict) else schema
        if kind == "record":
            parts = [
                self._read(out, depth, field["type"], field["name"]) for field in schema["fields"]
            ]
            struct = schema["name"].rsplit(".", 1)[-1]
            out.add(depth, f"{x} = new_{struct}({', '.join(parts)})")
        elif kind == "fixed":
            out.add(depth, f"{x} = v[i:i + {schema['size']}]; i += {schema['size']}")
        elif kind in ("bytes", "string"):
            self._read_sized(out, depth, x, kind)
        elif kind == "long" and name.endswith("_ms"):
            self._read_time(out, depth, x)
        elif kind in ("int", "long"):
            self._read_number(out, depth, x, kind)
        elif kind == "boolean":
            out.add(depth, f"{x} = v[i] == 1; i += 1")
        elif kind == "array":
            self._read_array(out, depth, x, schema["items"])
        else:
            raise TypeError(f"no reader for Avro type {kind!r}")
        return x

    def _read_sized(self, out: _Source, depth: int, x: str, kind: str) -> None:
        out.add(depth, "n = v[i]")
        out.add(depth, "if n & 129 == 0:")  # up to 63 bytes
        out.add(depth + 1, "n >>= 1; i += 1")
        out.add(depth, "elif n & 1 == 0 and v[i + 1] < 128:")  # up to 8191
        out.add(depth + 1, "n = (n & 127 | v[i + 1] << 7) >> 1; i += 2")
        out.add(depth, "else:")
        out.add(depth + 1, "n, i = read_size(v, i)")
        text = "v[i:i + n].decode()" if kind == "string" else "v[i:i + n]"
        out.add(depth, f"{x} = {text}; i += n")

    def _read_number(self, out: _Source, depth: int, x: str, kind: str) -> None:
        out.add(depth, "n = v[i]")
        out.add(depth, "if n < 128:")  # flags, counts, nulls: one byte
        out.add(depth + 1, f"{x} = (n >> 1) ^ -(n & 1); i += 1")
        if kind == "long":
            out.add(depth, "else:")
            out.add(depth + 1, f"{x}, i = read_long(v, i)")
            return
        # A digest fills its 32 bits, five bytes, fifteen times of sixteen. The four continuation
        # bits are known to be set, so one subtraction takes them off.
        out.add(depth, "else:")
        out.add(depth + 1, "a, b, c, d, e = v[i:i + 5] if len(v) - i > 4 else short_of_five")
        out.add(depth + 1, "if e < 16 and a > 127 and b > 127 and c > 127 and d > 127:")
        out.add(depth + 2, "n = a + (b << 7) + (c << 14) + (d << 21) + (e << 28)")
        out.add(depth + 2, f"n -= {sum(128 << 7 * at for at in range(4))}; i += 5")
        out.add(depth + 2, f"{x} = n >> 1 ^ -(n & 1)")
        out.add(depth + 1, "else:")
        out.add(depth + 2, f"{x}, i = read_long(v, i)")
        out.add(depth + 2, f"if not {-(1 << 31)} <= {x} < {1 << 31}:")
        out.add(depth + 3, "raise ValueError('an int of more than 32 bits')")

    def _read_time(self, out: _Source, depth: int, x: str) -> None:
        out.add(depth, "n = high_of_time.get(v[i + 2:i + 6])")
        out.add(depth, "if n is not None and (a := v[i]) > 127 and (b := v[i + 1]) > 127:")
        out.add(depth + 1, f"n += a + (b << 7); {x} = n >> 1 ^ -(n & 1); i += 6")
        out.add(depth, "else:")
        out.add(depth + 1, f"{x}, i = read_time(v, i)")

    def _read_array(self, out: _Source, depth: int, x: str, items: Any) -> None:
        count, item = out.fresh("c"), out.fresh("k")
        out.add(depth, f"{x} = []")
        out.add(depth, "if v[i] == 0:")
        out.add(depth + 1, "i += 1")
        out.add(depth, "else:")
        out.add(depth + 1, "while True:")
        out.add(depth + 2, f"{count}, i = read_long(v, i)")
        out.add(depth + 2, f"if {count} == 0: break")
        out.add(depth + 2, f"if {count} < 0:")  # a block that states its size in bytes
        out.add(depth + 3, f"{count} = -{count}; n, i = read_size(v, i)")
        out.add(depth + 2, f"if {count} > len(v): raise ValueError('a count outside the record')")
        out.add(depth + 2, f"for {item} in range({count}):")
        inner = self._read(out, depth + 3, items)
        out.add(depth + 3, f"{x}.append({inner})")

    # -- writing

    def writer(self, schema: Mapping[str, Any], part: slice = slice(None)) -> Writer:
        """A function that writes a record, or the `part` of its fields: bytes to be joined."""
        self._learn(schema)
        source = _Source()
        source.add(0, "def write(r):")
        parts = self._write_fields(source, 1, {**schema, "fields": schema["fields"][part]}, "r")
        source.add(1, f"return b''.join(({', '.join(parts)},))")
        scope: dict[str, Any] = {"write_long": write_long, "short": SHORT}
        exec("\n".join(source.lines), scope)  # noqa: S102  generated from our own committed schemas
        writer: Writer = scope["write"]
        return writer

    def _write_fields(self, out: _Source, depth: int, schema: Any, value: str) -> list[str]:
        parts: list[str] = []
        for field in schema["fields"]:
            parts += self._write(out, depth, field["type"], f"{value}.{field['name']}")
        return parts

    def _write(self, out: _Source, depth: int, schema: Any, value: str) -> list[str]:
        schema = self._resolve(schema)
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(schema, list):
            self._nullable(schema)
            x = out.fresh("x")
            out.add(depth, f"if {value} is None:")
            out.add(depth + 1, f"{x} = b'\\x00'")
            out.add(depth, "else:")
            inner = self._write(out, depth + 1, schema[1], value)
            out.add(depth + 1, f"{x} = b''.join((b'\\x02', {', '.join(inner)}))")
            return [x]
        if kind == "record":
            return self._write_fields(out, depth, schema, value)
        if kind == "fixed":
            return [self._checked_fixed(out, depth, schema, value)]
        if kind in ("bytes", "string"):
            b = out.fresh("b")
            out.add(depth, f"{b} = {value}.encode()" if kind == "string" else f"{b} = {value}")
            n = out.fresh("n")
            out.add(depth, f"{n} = len({b})")
            return [f"short[{n} * 2] if {n} < 8192 else write_long({n})", b]
        if kind in ("int", "long"):
            x = out.fresh("x")
            out.add(depth, f"{x} = {value}")
            return [f"short[{x} * 2] if 0 <= {x} < 8192 else write_long({x})"]
        if kind == "boolean":
            return [f"b'\\x01' if {value} else b'\\x00'"]
        if kind == "array":
            return [self._write_array(out, depth, schema["items"], value)]
        raise TypeError(f"no writer for Avro type {kind!r}")

    def _checked_fixed(self, out: _Source, depth: int, schema: Any, value: str) -> str:
        b = out.fresh("b")
        out.add(depth, f"{b} = {value}")
        out.add(depth, f"if len({b}) != {schema['size']}:")
        message = f"{schema['name']} needs {schema['size']} bytes"
        out.add(depth + 1, f"raise ValueError({message!r})")
        return b

    def _write_array(self, out: _Source, depth: int, items: Any, value: str) -> str:
        x, item, parts = out.fresh("x"), out.fresh("k"), out.fresh("p")
        out.add(depth, f"if {value}:")
        out.add(depth + 1, f"{parts} = [write_long(len({value}))]")
        out.add(depth + 1, f"for {item} in {value}:")
        inner = self._write(out, depth + 2, items, item)
        out.add(depth + 2, f"{parts} += ({', '.join(inner)},)")
        out.add(depth + 1, f"{parts}.append(b'\\x00'); {x} = b''.join({parts})")
        out.add(depth, "else:")
        out.add(depth + 1, f"{x} = b'\\x00'")
        return x

    def _nullable(self, schema: list[Any]) -> None:
        if len(schema) != 2 or schema[0] != "null":
            raise TypeError("only unions of null and one type are used here")
