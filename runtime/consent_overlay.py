"""What has a person decided, as of now?

The log is the record; whoever shows or sends must know at once, and cannot wait for a lane. So
every decision is also here, durable, before anybody is told that it is in force: one hash a person
beside their row in the vault (docs/adr/0010-ways-in.md says why there), one field a matter, one
line a decision that can still matter: recorded, from, to (ms; '-' for never), status, record id,
content hash, and 's' if a stamp said it or 'g' if a guardian did. A line goes once a later one
covers it: it could change no answer of schemas/consent.py any more. The field '@age' has what the
newest record told of the person's age: recorded, at least so old (years), as of (ms), country.
Everything here is on the log, so it can be made again from there.

Between the moment in which a sender asks and the moment in which it sends, a person may withdraw.
So who asks to send leaves a key beside the hash that lives for `SEND_WITHIN_MS`, and sends before
it is over; and whoever put a refusal here waits until no such key is left before they call it in
force (docs/adr/0015-permission-to-send.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from runtime.kin import Kin
from runtime.settings import Settings
from runtime.vault_client import async_vault_client
from runtime.vault_faults import faults
from runtime.vault_rows import require_durable
from schemas.decisions import Known
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.held import Layout, held
from schemas.minors import Age
from schemas.subjects import Consent

AGE_FIELD = "@age"
SEND_WITHIN_MS = 1000
"""So long after asking may a sender begin to send."""
_WAITAOF = ("WAITAOF", 1, 0, 4000)

# Arguments: prefix, pid, ms. Answers what is decided, as HGETALL does; nothing for a person without
# a row. In one script: whoever decides later finds the key, and whoever decided before is read.
ASK = """
local prefix, pid = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'key:' .. pid) == 0 then return false end
redis.call('SET', prefix .. 'sending:' .. pid, '1', 'PX', ARGV[3])
return redis.call('HGETALL', prefix .. 'consent:' .. pid)
"""

# Arguments: prefix, pid, then field and line of each decision. Answers 0, and does nothing, for a
# person without a row: erased meanwhile. A line that is there already is written all the same:
# WAITAOF covers only what its own connection wrote.
PUT = """
local prefix, pid = ARGV[1], ARGV[2]
if redis.call('EXISTS', prefix .. 'key:' .. pid) == 0 then return 0 end
local row = prefix .. 'consent:' .. pid
local function parse(line)
  local r, f, t, s, id = string.match(line, '^(%d+) (%d+) (%S+) (%S+) (%S+)')
  return {line = line, recorded = tonumber(r), from = tonumber(f),
          to = t == '-' and math.huge or tonumber(t),
          is_yes = s == 'granted' or s == 'subscribed', id = id}
end
local function covers(later, earlier)
  local begins, recorded = later.from - earlier.from, later.recorded - earlier.recorded
  if begins < 0 or recorded < 0 or later.to < earlier.to then return false end
  if begins + recorded == 0 and (later.is_yes or not earlier.is_yes) then return false end
  return not later.is_yes or later.from <= later.recorded
end
local function keep_newest(field, told)
  local old = redis.call('HGET', row, field)
  if not old or tonumber(string.match(old, '^%d+')) <= tonumber(string.match(told, '^%d+')) then
    redis.call('HSET', row, field, told)
  end
end
local function decide(i)
  local kept, new = {}, parse(ARGV[i + 1])
  local is_covered = false
  for line in string.gmatch(redis.call('HGET', row, ARGV[i]) or '', '[^\\n]+') do
    local old = parse(line)
    if old.id ~= new.id and not covers(new, old) then
      kept[#kept + 1] = line
      is_covered = is_covered or covers(old, new)
    elseif old.id == new.id then
      new = old
    end
  end
  if not is_covered then kept[#kept + 1] = new.line end
  redis.call('HSET', row, ARGV[i], table.concat(kept, '\\n'))
end
for i = 3, #ARGV, 2 do
  if ARGV[i] == '@age' then keep_newest(ARGV[i], ARGV[i + 1]) else decide(i) end
end
return 1
"""

LAYOUT = (
    Layout(
        "consent:{pid}",
        "vault",
        "until the person is erased",
        (
            held(
                "{matter}",
                "trait",
                "accountability",
                "What the person decided on a purpose or subscription, as far as it still matters",
            ),
            held(
                AGE_FIELD,
                "trait",
                "accountability",
                "How old the person was at least, when, and by which country's law they decide",
            ),
        ),
    ),
    Layout(
        "sending:{pid}",
        "vault",
        "a second",
        (held("value", "technical", "accountability", "A message to the person may be under way"),),
    ),
)
"""What this module's scripts write."""

_UNREADABLE = "what people decided cannot be read in the vault"
Matters = Mapping[str, Sequence[Known]]
"""Matter ('purpose/analytics') -> decisions on it that can still matter."""


class ConsentOverlay:
    """Reads and writes what is decided now; belongs to the event loop that first uses it."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.vault.key_prefix
        self._is_durable = settings.vault.durable_writes
        self._client: Any = async_vault_client(settings.vault_url)
        self.kin = Kin(self._client, self._prefix, is_durable=self._is_durable)
        """Whose decisions count together; on the same connections."""

    async def read(self, pids: Sequence[bytes]) -> list[Matters]:
        """For each person what is decided. Raises StoreUnavailable when it cannot be told: whoever
        shows or sends then does neither."""
        return [matters for matters, _ in await self.read_with_age(pids)]

    async def read_with_age(self, pids: Sequence[bytes]) -> list[tuple[Matters, Age | None]]:
        """The same, and how old each is as far as decisions told it. Raises as `read`."""
        pipe = self._client.pipeline(transaction=False)
        for pid in pids:
            pipe.hgetall(self._key(pid))
        try:
            with faults():
                rows = await pipe.execute()
            return [_parse_row(row.items()) for row in rows]
        except (StoreRefused, ValueError):
            raise StoreUnavailable(_UNREADABLE) from None

    async def read_to_send(self, pids: Sequence[bytes]) -> list[Matters | None]:
        """As `read`, for who begins to send within SEND_WITHIN_MS of calling this, or not at all;
        None for a pid without a row: erased meanwhile. Raises as `read`."""
        pipe = self._client.pipeline(transaction=False)
        for pid in pids:
            pipe.eval(ASK, 0, self._prefix, pid.hex(), SEND_WITHIN_MS)
        try:
            with faults():
                rows = await pipe.execute()
            return [
                None if row is None else _parse_row(zip(row[::2], row[1::2], strict=True))[0]
                for row in rows
            ]
        except (StoreRefused, ValueError):
            raise StoreUnavailable(_UNREADABLE) from None

    async def outlast_sends(self, pids: Iterable[bytes]) -> None:
        """Whoever asked to send to these people before this was called has begun, or will not.

        Raises StoreUnavailable or StoreRefused.
        """
        pipe = self._client.pipeline(transaction=False)
        for pid in pids:
            pipe.pttl(f"{self._prefix}sending:{pid.hex()}")
        with faults():
            left_ms = max(await pipe.execute(), default=0)
        # Once: who asks from now on reads what is decided by now.
        if left_ms > 0:
            await asyncio.sleep(left_ms / 1000)

    async def consents_of(self, pid: bytes) -> list[Consent]:
        """Every decision of a pid that can still matter. Raises as `read`."""
        (found,) = await self.consents_of_each([pid])
        return found

    async def consents_of_each(self, pids: Sequence[bytes]) -> list[list[Consent]]:
        """The same of several pids, in order."""
        return [consents_in(matters) for matters in await self.read(pids)]

    async def put(self, decided: Mapping[bytes, Iterable[Known]]) -> None:
        """All of it is in force, and on disk where the server promises that. Repeating it changes
        nothing. Raises StoreUnavailable or StoreRefused."""
        pipe = self._client.pipeline(transaction=False)
        for pid, known in decided.items():
            args = [part for each in known for part in _arguments(each)]
            pipe.eval(PUT, 0, self._prefix, pid.hex(), *args)
        if self._is_durable:
            # On the same connection: it waits for that connection's writes.
            pipe.execute_command(*_WAITAOF)
        with faults():
            answers = await pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])

    async def close(self) -> None:
        """Give the connections back."""
        close: Callable[[], Awaitable[None]] = self._client.aclose
        await close()

    def _key(self, pid: bytes) -> str:
        return f"{self._prefix}consent:{pid.hex()}"


def consents_in(matters: Matters) -> list[Consent]:
    """The decisions alone."""
    return [known.consent for on_one in matters.values() for known in on_one]


def _arguments(known: Known) -> Iterator[str]:
    yield from (known.consent.subject_of, _line(known))
    age = known.age
    if age is not None:
        told = (known.consent.recorded_at_ms, age.at_least, age.as_of_ms, age.country or "-")
        yield from (AGE_FIELD, " ".join(map(str, told)))


def _line(known: Known) -> str:
    consent = known.consent
    until = "-" if consent.valid_to_ms is None else str(consent.valid_to_ms)
    parts = [
        str(consent.recorded_at_ms),
        str(consent.valid_from_ms),
        until,
        consent.status,
        known.record_id.hex(),
        known.content.hex(),
        "s" if known.is_stamp else "g" if known.is_guardians else "-",
    ]
    return " ".join(parts)


def _parse_row(row: Iterable[tuple[bytes, bytes]]) -> tuple[Matters, Age | None]:
    matters: dict[str, list[Known]] = {}
    age = None
    for field, value in row:
        name = field.decode()
        if name == AGE_FIELD:
            _, at_least, as_of_ms, country = value.decode().split(" ")
            age = Age(int(at_least), int(as_of_ms), None if country == "-" else country)
        else:
            matters[name] = _parse(name, value)
    return matters, age


def _parse(subject_of: str, lines: bytes) -> list[Known]:
    found = []
    for line in lines.decode().split("\n"):
        recorded, begins, until, status, record_id, content, way = line.split(" ")
        valid_to_ms = None if until == "-" else int(until)
        found.append(
            Known(
                Consent(subject_of, status, int(begins), valid_to_ms, int(recorded)),
                bytes.fromhex(record_id),
                bytes.fromhex(content),
                is_stamp=way == "s",
                is_guardians=way == "g",
            )
        )
    return found
