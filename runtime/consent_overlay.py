"""What has a person decided, as of now?

The log is the record; whoever shows or sends must know at once, and cannot wait for a lane. So
every decision is also here, durable, before anybody is told that it is in force: one hash a person
beside their row in the vault (docs/adr/0010-ways-in.md says why there), one field a matter, one
line a decision that can still matter: recorded, from, to (ms; '-' for never), status, record id,
content hash, and 's' if a stamp said it. A line goes once a later one covers it: it could change no
answer of schemas/consent.py any more. Everything here is on the log, so it can be made again from
there.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from runtime.settings import Settings
from runtime.vault_faults import faults
from runtime.vault_rows import require_durable
from schemas.decisions import Known
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.held import Layout, held
from schemas.subjects import Consent

ANSWER_WITHIN_S = 5.0
_WAITAOF = ("WAITAOF", 1, 0, 4000)

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
for i = 3, #ARGV, 2 do
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
        ),
    ),
)
"""What this module's script writes."""

Matters = Mapping[str, Sequence[Known]]
"""Matter ('purpose/analytics') -> decisions on it that can still matter."""


class ConsentOverlay:
    """Reads and writes what is decided now; belongs to the event loop that first uses it."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.vault.key_prefix
        self._is_durable = settings.vault.durable_writes
        self._client: Any = redis.asyncio.Redis.from_url(
            settings.vault_url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
            retry=Retry(NoBackoff(), 1),
        )

    async def read(self, pids: Sequence[bytes]) -> list[Matters]:
        """For each person what is decided. Raises StoreUnavailable when it cannot be told: whoever
        shows or sends then does neither."""
        pipe = self._client.pipeline(transaction=False)
        for pid in pids:
            pipe.hgetall(self._key(pid))
        try:
            with faults():
                rows = await pipe.execute()
            return [
                {field.decode(): _parse(field.decode(), lines) for field, lines in row.items()}
                for row in rows
            ]
        except (StoreRefused, ValueError):
            raise StoreUnavailable("what people decided cannot be read in the vault") from None

    async def consents_of(self, pid: bytes) -> list[Consent]:
        """Every decision of a person that can still matter. Raises as `read`."""
        (matters,) = await self.read([pid])
        return [known.consent for on_one in matters.values() for known in on_one]

    async def put(self, decided: Mapping[bytes, Iterable[Known]]) -> None:
        """All of it is in force, and on disk where the server promises that. Repeating it changes
        nothing. Raises StoreUnavailable or StoreRefused."""
        pipe = self._client.pipeline(transaction=False)
        for pid, known in decided.items():
            args = [part for each in known for part in (each.consent.subject_of, _line(each))]
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
        "s" if known.is_stamp else "-",
    ]
    return " ".join(parts)


def _parse(subject_of: str, lines: bytes) -> list[Known]:
    found = []
    for line in lines.decode().split("\n"):
        recorded, begins, until, status, record_id, content, stamp = line.split(" ")
        valid_to_ms = None if until == "-" else int(until)
        found.append(
            Known(
                Consent(subject_of, status, int(begins), valid_to_ms, int(recorded)),
                bytes.fromhex(record_id),
                bytes.fromhex(content),
                stamp == "s",
            )
        )
    return found
