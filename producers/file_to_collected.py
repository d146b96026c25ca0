"""How does a file of what happened long ago come in like everything else?

Each row becomes a call by a mapping and goes through the collector over HTTP, so it is checked,
sealed and counted like a live one. Its message id is a hash of the file's content and the row's
number: a file sent again within the deduplication window, or after a kill in the middle, changes
nothing, while equal rows stay different events.
"""

import hashlib
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Self

import orjson

from producers.file_rows import FileRow, open_rows
from producers.posting import MOST_BATCH_BYTES, Poster
from producers.rules.call_keys import CallKeys
from producers.rules.calls import Arrival, CallRules, Refused, check_call
from producers.rules.mapping import BadRow, CallMapping, parse_mapping
from producers.rules.split import ClearNames
from producers.rules.stated import Categories
from producers.rules.times import TimeLimits
from runtime.clock import ClockMs, now_ms
from runtime.settings import Settings
from schemas.errors import SettingInvalid

MOST_CALLS = 100
SENDERS = 4
GIVES_UP_AFTER_S = 300.0
_SHOWN_BAD_ROWS = 100


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: rows acknowledged by the collector, bad rows, share of the file."""

    sent: int
    bad: int
    fraction: float


@dataclass(slots=True)
class Report:
    """What became of a file. `bad_rows` has the first hundred: row number and reason."""

    sent: int = 0
    bad: int = 0
    bad_rows: list[tuple[int, str]] = field(default_factory=list)


def load_mapping(path: Path) -> CallMapping:
    """The mapping in a TOML file. Raises SettingInvalid naming the file and what is wrong."""
    try:
        return parse_mapping(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise SettingInvalid(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingInvalid(f"{path} is not valid TOML: {error}") from None
    except SettingInvalid as error:
        raise SettingInvalid(f"{path}: {error}") from None


def replay_file(
    path: Path,
    mapping: CallMapping,
    url: str,
    write_key: str,
    *,
    on_progress: Callable[[Progress], object] = lambda _: None,
    senders: int = SENDERS,
    clock: ClockMs = now_ms,
) -> Report:
    """Every good row of `path` is acknowledged by the collector at `url`; the others are told.

    Raises SettingInvalid when the file and the mapping do not fit, StoreRefused when the collector
    refuses whole batches (a wrong key), StoreUnavailable when it takes nothing for minutes; sending
    the same file again goes on where that ended.
    """
    report = Report()
    content = _digest(path)
    with open_rows(path, mapping.file) as opened:
        missing = mapping.columns - opened.columns if opened.columns is not None else frozenset()
        if missing:
            assert opened.columns is not None
            raise SettingInvalid(
                f"the mapping names the column {min(missing)}, which {path} does not have; it has "
                f"{', '.join(sorted(opened.columns))}"
            )
        batches = _batches(opened.rows, mapping, content, report, clock)
        with _Senders(url, write_key, senders) as team:
            for batch in team.send(batches):
                report.sent += batch.calls
                on_progress(Progress(report.sent, report.bad, batch.fraction))
    return report


def message_id_of(content: str, number: int) -> str:
    """The message id of a row: the same for the same file and row, whatever the mapping says."""
    return hashlib.sha256(f"{content}/{number}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Batch:
    body: bytes
    calls: int
    fraction: float


def _batches(
    rows: Iterator[FileRow], mapping: CallMapping, content: str, report: Report, clock: ClockMs
) -> Iterator[_Batch]:
    """The good rows as bodies of POST /v1/batch; the bad ones go into `report`."""
    calls: list[bytes] = []
    size, fraction = 0, 0.0
    rules = _rules()
    for row in rows:
        try:
            call = _call_of(row, mapping, content, rules, clock())
        except BadRow as bad:
            report.bad += 1
            if len(report.bad_rows) < _SHOWN_BAD_ROWS:
                report.bad_rows.append((row.number, str(bad)))
            continue
        if calls and (len(calls) == MOST_CALLS or size + len(call) > MOST_BATCH_BYTES):
            yield _Batch(_body(calls), len(calls), fraction)
            calls, size = [], 0
        calls.append(call)
        size += len(call) + 1
        fraction = row.fraction
    if calls:
        yield _Batch(_body(calls), len(calls), 1.0)


def _call_of(
    row: FileRow, mapping: CallMapping, content: str, rules: CallRules, at_ms: int
) -> bytes:
    """The call of a row as JSON. Raises BadRow, also for what the collector would set aside."""
    if isinstance(row.values, BadRow):
        raise row.values
    call = mapping.call_of(row.values, row.number, message_id_of(content, row.number))
    # Judged by the collector's own rules, so that the person at the screen hears of the row now.
    found = check_call(call, Arrival("file", at_ms, None, "$", None), rules)
    if isinstance(found, Refused):
        raise BadRow(f"{found.fault.path}: {found.fault.reason}, expected {found.fault.expected}")
    return orjson.dumps(call)


class _Senders:
    """Some connections that send at once; few batches are under way, so memory stays small."""

    def __init__(self, url: str, write_key: str, count: int) -> None:
        self._posters = [
            Poster(url, write_key, gives_up_after_s=GIVES_UP_AFTER_S) for _ in range(count)
        ]
        self._free: SimpleQueue[Poster] = SimpleQueue()
        for poster in self._posters:
            self._free.put(poster)
        self._pool = ThreadPoolExecutor(count, "replay")

    def send(self, batches: Iterator[_Batch]) -> Iterator[_Batch]:
        """Each batch in order, once it is acknowledged."""
        under_way: deque[Future[_Batch]] = deque()
        for batch in batches:
            under_way.append(self._pool.submit(self._post, batch))
            if len(under_way) > 2 * len(self._posters):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _post(self, batch: _Batch) -> _Batch:
        poster = self._free.get()
        try:
            poster.post(batch.body)
        finally:
            self._free.put(poster)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for poster in self._posters:
            poster.stop()
        self._pool.shutdown(cancel_futures=True)
        for poster in self._posters:
            poster.close()


def _rules() -> CallRules:
    """The collector's rules with its default limits; the hashes are thrown away."""
    time = Settings().time
    nothing = frozenset[str]()
    return CallRules(
        CallKeys.of(bytes(32)),
        ClearNames(nothing, nothing, nothing),
        TimeLimits(skew_ms=time.skew_limit_s * 1000, future_ms=time.future_limit_s * 1000),
        str,
        Categories.of({}, ()),
    )


def _body(calls: list[bytes]) -> bytes:
    return b'{"batch":[' + b",".join(calls) + b"]}"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingInvalid(f"cannot read {path}: {error.strerror}") from None
