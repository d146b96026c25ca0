"""What lies on the disk of each store, in clear or packed?

Stores pack what they write: ClickHouse each column in frames of its own, Redis long strings of its
snapshots with LZF, Kafka whole batches if a producer asks for it, noida-db bytes as numbers. A search through the bytes alone
would find nothing in those and prove nothing. So everything is searched twice, as it lies there and
unpacked, and whoever searches puts something readable into each store first, to see it found.
"""

import base64
import gzip
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import lz4.frame  # type: ignore[import-untyped]
from backports import zstd

_BATCH = struct.Struct(">qiibIH")
"""Kafka's record batch: base offset, length after it, epoch, magic, crc, attributes."""
_BATCH_HEAD = 61
_FRAME = struct.Struct("<BII")
"""ClickHouse's compressed block after 16 bytes of checksum: method, packed size with these 9 bytes,
size."""
_LZF_MARK = b"\xc3"


def found(directory: Path, wanted: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Where each of `wanted` lies, by its name: files under `directory`, in any form."""
    forms = {name: list(_forms(value)) for name, value in wanted.items()}
    places: dict[str, list[str]] = {}
    for file in sorted(directory.rglob("*")):
        texts = list(_texts(file)) if file.is_file() else []
        for name, values in forms.items():
            if any(value in text for value in values for text in texts):
                places.setdefault(name, []).append(str(file.relative_to(directory)))
    return places


def _forms(value: bytes) -> Iterator[bytes]:
    """As it is, in hexadecimal digits, and in base64 however it falls into its groups of three."""
    yield value
    yield from (value.hex().encode(), value.hex().upper().encode())
    for shift in range(3):
        padded = base64.urlsafe_b64encode(b"\0" * shift + value)
        # The first and the last sign may hold bits of the neighbours.
        text = padded.rstrip(b"=")[2 * (shift > 0) + (shift == 2) : -1]
        yield from (text, text.replace(b"-", b"+").replace(b"_", b"/"))


def _texts(file: Path) -> Iterator[bytes]:
    try:
        raw = _written(file)
    except FileNotFoundError:
        return  # replaced while we looked; its successor is another file
    yield raw
    if file.suffix == ".log" and file.stem.isdigit():
        yield from _kafka(raw)
    elif file.name == "kafka.json":
        yield from _noida_db(raw)
    elif file.suffix == ".rdb":
        yield from _redis(raw)
    else:
        yield from _clickhouse(raw)


def _written(file: Path) -> bytes:
    """The file without its holes: Kafka makes its indices large, and leaves them empty."""
    parts = []
    with file.open("rb") as opened:
        size, at = os.fstat(opened.fileno()).st_size, 0
        while at < size:
            try:
                at = os.lseek(opened.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole follows
            end = os.lseek(opened.fileno(), at, os.SEEK_HOLE)
            parts.append(os.pread(opened.fileno(), end - at, at))
            at = end
    return b"\n".join(parts)


def _kafka(raw: bytes) -> Iterator[bytes]:
    """The records of each packed batch."""
    at = 0
    while at + _BATCH_HEAD <= len(raw):
        _, length, _, magic, _, attributes = _BATCH.unpack_from(raw, at)
        if magic != 2 or length <= 0:
            return  # the end of a file that was made larger beforehand
        records = raw[at + _BATCH_HEAD : at + 12 + length]
        match attributes & 7:
            case 0:
                pass  # in clear, hence seen already
            case 1:
                yield gzip.decompress(records)
            case 3:
                yield bytes(lz4.frame.decompress(records))
            case 4:
                yield bytes(zstd.decompress(records))
            case codec:
                raise AssertionError(f"batch packed with codec {codec}, which nobody looks into")
        at += 12 + length


def _noida_db(raw: bytes) -> Iterator[bytes]:
    """Its batches, which it keeps as lists of numbers."""
    try:
        saved = json.loads(raw)
    except ValueError:
        raise AssertionError("kafka.json is being written") from None
    for _, topic in saved["topics"]:
        for _, partition in topic["partitions"]:
            for _, numbers in partition["record_batches"]:
                batch = bytes(numbers)
                yield batch
                yield from _kafka(batch)


def _clickhouse(raw: bytes) -> Iterator[bytes]:
    """The blocks of a file that is a row of frames."""
    at, blocks = 0, []
    while at + 16 + _FRAME.size <= len(raw):
        method, packed, size = _FRAME.unpack_from(raw, at + 16)
        if method not in (0x02, 0x82, 0x90) or not 9 <= packed <= len(raw) - at - 16:
            return  # no such file
        body = raw[at + 16 + _FRAME.size : at + 16 + packed]
        match method:
            case 0x82:
                body = bytes(lz4.block.decompress(body, uncompressed_size=size))
            case 0x90:
                body = bytes(zstd.decompress(body))
        blocks.append(body)
        at += 16 + packed
    # A value may begin in one block and end in the next.
    yield b"".join(blocks)


def _redis(raw: bytes) -> Iterator[bytes]:
    """Every string of a snapshot that was packed: wherever one may begin, because a wrong guess
    finds nothing."""
    at = raw.find(_LZF_MARK)
    while at >= 0:
        packed, after = _length(raw, at + 1)
        size, begins = _length(raw, after)
        if 0 < packed <= len(raw) - begins and packed < size < 1 << 24:
            text = _unpack_lzf(raw[begins : begins + packed], size)
            if text is not None:
                yield text
        at = raw.find(_LZF_MARK, at + 1)


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """A length of the snapshot's format, and what comes after it; 0 where there is none."""
    kind = raw[at] >> 6 if at < len(raw) else 3
    if kind == 0:
        return raw[at] & 0x3F, at + 1
    if kind == 1 and at + 1 < len(raw):
        return (raw[at] & 0x3F) << 8 | raw[at + 1], at + 2
    if kind == 2 and at + 4 < len(raw) and raw[at] == 0x80:
        return int.from_bytes(raw[at + 1 : at + 5], "big"), at + 5
    return 0, at + 1


def _unpack_lzf(packed: bytes, size: int) -> bytes | None:
    """LibLZF's format; None if it is something else."""
    out, at = bytearray(), 0
    try:
        while at < len(packed):
            control = packed[at]
            at += 1
            if control < 32:
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            count = control >> 5
            if count == 7:
                count += packed[at]
                at += 1
            start = len(out) - ((control & 31) << 8) - packed[at] - 1
            at += 1
            if start < 0:
                return None
            for place in range(start, start + count + 2):
                out.append(out[place])
    except IndexError:
        return None
    return bytes(out) if len(out) == size else None


def names(places: Mapping[str, Iterable[str]], *, within: str) -> list[str]:
    """Those that were found in a file whose path begins like this."""
    return sorted(n for n, files in places.items() if any(f.startswith(within) for f in files))
