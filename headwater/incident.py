"""Whom and what did an incident touch, and who read it? For the notice due within 72 hours.

GDPR Art. 33(3) asks for the categories and number of people and of records concerned. People are
those of whom events were received in the time, from facts, and those whose data were read in it,
from the record of accesses; fields are those that the inventory finds in the places concerned.
People stay pseudonyms unless identifiers are asked for, which is itself written down.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from headwater.inventory import Place
from producers.calls_to_collected import sources_of
from producers.rules.call_keys import CallKeys
from runtime.clickhouse import answering, connect
from runtime.sealing import secrets_of
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.errors import SettingInvalid

EXPECTED_TIME = "a time with its zone, such as 2026-01-31T12:00:00Z"
TRAIT = "traits."
_BY_EVENTS = ("events.collected", "events.accepted", "subjects", ".facts", "{pid}")
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """The incident; `from_ms` inclusive, `to_ms` exclusive, UTC. Empty source or field: any."""

    from_ms: int
    to_ms: int
    source: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """One person; `identifier` is None when not asked for, or gone with an erasure."""

    pid: str
    events: int
    reads: int
    identifier: str | None = None


@dataclass(frozen=True, slots=True)
class ReadBy:
    """Reads in one role, of one kind."""

    role: str
    kind: str
    reads: int
    subjects: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class FieldTouched:
    """One field that may be concerned."""

    place: str
    field: str
    data_class: str
    is_sealed: bool


@dataclass(frozen=True, slots=True)
class Scope:
    """The answer."""

    asked: Asked
    events: int
    subjects: tuple[Touched, ...]
    fields: tuple[FieldTouched, ...]
    read_by: tuple[ReadBy, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        found = asdict(self)
        asked = found.pop("asked")
        return {
            "from": _text(asked["from_ms"]),
            "to": _text(asked["to_ms"]),
            "source": asked["source"] or None,
            "field": asked["field"] or None,
            "subject_count": len(self.subjects),
            **found,
        }


def read_window(from_: str, to: str) -> tuple[int, int]:
    """Both times in UTC ms. Raises SettingInvalid, saying what was expected."""
    begins, ends = _moment("--from", from_), _moment("--to", to)
    if begins >= ends:
        raise SettingInvalid(f"--to {to}: expected a time after --from {from_}")
    return begins, ends


def require_source(source: str, settings: Settings) -> None:
    """Raise SettingInvalid unless the source is configured, or has sent events."""
    with connect(settings) as client:
        rows = _ask(client, "SELECT DISTINCT source FROM facts WHERE source != ''", {})
    known = {*(each.name for each in sources_of(settings)), *(row[0] for row in rows)}
    if source not in known:
        raise SettingInvalid(f"--source {source}: expected one of {', '.join(sorted(known))}")


def find_scope(
    settings: Settings, asked: Asked, places: Sequence[Place], *, identify: bool, now_ms: int
) -> Scope:
    """Everybody and everything touched. With `identify` it is written down that we looked.

    Raises SettingInvalid for a field that nothing holds, StoreUnavailable or StoreRefused.
    """
    fields = _fields(places, asked)
    parameters: dict[str, Any] = {
        "from": asked.from_ms,
        "to": asked.to_ms,
        "source": asked.source,
        "trait": _trait(settings, asked.field),
    }
    with connect(settings, answer_within_s=600) as client:
        rows = _ask(client, _SUBJECTS, parameters)
        readers = _ask(client, _READERS, parameters)
        subjects = [Touched(pid.lower(), int(events), int(reads)) for pid, events, reads in rows]
        if identify and subjects:
            _note_reading(client, subjects, now_ms)
            subjects = _identified(settings, subjects)
    return Scope(
        asked,
        sum(subject.events for subject in subjects),
        tuple(subjects),
        fields,
        tuple(ReadBy(*row) for row in readers),
        tuple(_notes(settings, asked, now_ms)),
    )


def _fields(places: Sequence[Place], asked: Asked) -> tuple[FieldTouched, ...]:
    concerned = [place for place in places if not asked.source or place.name.endswith(_BY_EVENTS)]
    wanted = asked.field
    # Which traits there are is sealed; that there are any is known.
    name = "traits" if wanted.startswith(TRAIT) else wanted
    found = tuple(
        FieldTouched(f"{place.kind} {place.name}", field.name, field.data_class, field.is_sealed)
        for place in concerned
        for field in place.fields
        if (not name and field.data_class != "technical") or (name and _is(field.name, name))
    )
    if name and not found:
        names = {field.name for place in concerned for field in place.fields}
        parts = names | {each.rsplit(".", 1)[-1] for each in names}
        close = difflib.get_close_matches(wanted, sorted(parts), n=1, cutoff=0.5)
        near = f"; did you mean {close[0]}?" if close else ""
        raise SettingInvalid(
            f"--field {wanted}: expected a field that headwater inventory shows, or "
            f"traits.NAME{near}"
        )
    return found


def _is(field: str, wanted: str) -> bool:
    """`Accepted.clear.properties.order_id` is meant by its last parts, and by its first."""
    return f".{wanted}." in f".{field}."


def _trait(settings: Settings, field: str) -> str:
    """How accesses name a trait: by the keyed hash of its name."""
    if not field.startswith(TRAIT):
        return ""
    _, pepper = secrets_of(settings)
    return f"traits/{CallKeys.of(pepper).trait_key_of(field.removeprefix(TRAIT)).hex()}"


def _identified(settings: Settings, subjects: list[Touched]) -> list[Touched]:
    vault, told = Vault.from_settings(settings), []
    try:
        for start in range(0, len(subjects), _AT_ONCE):
            part = subjects[start : start + _AT_ONCE]
            rows = vault.identifiers_of([bytes.fromhex(each.pid) for each in part])
            for each, row in zip(part, rows, strict=True):
                identifier = None if row is None else f"{row[1]}:{row[2]}"
                told.append(Touched(each.pid, each.events, each.reads, identifier))
    finally:
        vault.close()
    return told


def _note_reading(client: Client, subjects: Iterable[Touched], now_ms: int) -> None:
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    rows = [
        [at, bytes.fromhex(each.pid), "command line", "incident", ["identifiers"]]
        for each in subjects
    ]
    with answering("to write down who reads identifiers"):
        client.insert("accesses", rows, column_names=["read_at", "pid", "role", "kind", "fields"])


def _notes(settings: Settings, asked: Asked, now_ms: int) -> Iterable[str]:
    days = settings.tables.accesses.retention_days
    if asked.from_ms < now_ms - days * 86_400_000:
        yield f"accesses are kept for {days} days: those before are not in this answer"
    yield "people who were erased since have left no facts, and are not counted"
    yield "reads are those through the API and the commands: of the stores, ask their own logs"


def _ask(client: Client, sql: str, parameters: dict[str, Any]) -> list[Any]:
    with answering("whom an incident touched"):
        return list(client.query(sql, parameters=parameters).result_rows)


def _moment(option: str, text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise SettingInvalid(f"{option} {text}: expected {EXPECTED_TIME}")
    return round(moment.timestamp() * 1000)


def _text(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_RECEIVED = """
SELECT pid, count() AS events FROM facts FINAL
WHERE idx = 0 AND received_at >= fromUnixTimestamp64Milli({from:Int64})
    AND received_at < fromUnixTimestamp64Milli({to:Int64})
    AND ({source:String} = '' OR source = {source:String})
GROUP BY pid
"""
_READ = f"""
SELECT pid, role, kind, read_at FROM accesses
WHERE read_at >= fromUnixTimestamp64Milli({{from:Int64}})
    AND read_at < fromUnixTimestamp64Milli({{to:Int64}})
    AND ({{trait:String}} = '' OR has(fields, {{trait:String}}) OR kind = 'incident')
    AND ({{source:String}} = '' OR pid IN (SELECT pid FROM ({_RECEIVED})))
"""  # noqa: S608 -- made of constants of this module
_SUBJECTS = f"""
SELECT hex(pid), sum(events), sum(reads)
FROM (
    SELECT pid, events, 0 AS reads FROM ({_RECEIVED})
    UNION ALL
    SELECT pid, 0 AS events, count() AS reads FROM ({_READ}) GROUP BY pid
)
GROUP BY pid ORDER BY pid
"""  # noqa: S608 -- as above
_READERS = f"""
SELECT role, kind, count(), uniqExact(pid),
    formatDateTime(min(read_at), '%Y-%m-%dT%H:%i:%SZ', 'UTC'),
    formatDateTime(max(read_at), '%Y-%m-%dT%H:%i:%SZ', 'UTC')
FROM ({_READ}) GROUP BY role, kind ORDER BY role, kind
"""  # noqa: S608 -- as above
