"""What does a batch ask of the vault's store, and what do the answers mean?

`id:<hash of the identifier>` holds a random pid in hex. `key:<pid>` is a hash: `k` the wrapped data
key, `i` the sealed identifier, `c` when the row was made (ms). `suppressed:<hash>` holds when its
person was erased (ms) and by which erasure, and stays. `consent:<pid>` is what they decided
(runtime/consent_overlay.py), `claims:<pid>` and `claimed:<pid>` who else they are (runtime/kin.py).
One script looks up or creates a whole batch, so two producers that
meet the same new person agree on one pid, and an erased one is never made anew in between: but for
a sign-up that happened after the erasure, or whatever happened after it to somebody forgotten for
being idle. They get a new pid, and learn when the past ended (ADR 0011, 0012).

`mark` is a hash: `id`, made with the vault, and `made`, how many rows it ever made. A server that
lost its rows would give everybody a second pid and nobody would notice: so the script refuses when
`id` is not the one that its caller knows, or `made` is less than the caller has seen on disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from types import MappingProxyType
from typing import Any

from runtime.sealing import PID_BYTES, IdType, KeyRing, Person, frame, unframe
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.held import Layout, held
from schemas.identifiers import phone_of, spelled_email

FRESH_MS = 3000
"""How long the server may still hold a row in memory only: `appendfsync everysec` is at most two
seconds behind. Who finds so young a row waits for it as its maker does."""

PID_ROWS = ("key", "consent", "claims", "claimed")
"""Kinds of row that are a pid's own: an erasure leaves none of them."""

_PEOPLE = "analytics, personalisation, accountability"

# Arguments: prefix, fresh ms, number of arguments for each identifier (1 or 5), id of the mark (""
# for any), rows ever made at least, and for each identifier: hash, candidate pid, wrapped key,
# sealed identifier, when somebody signed up as it (ms; 0 for nobody); without a candidate: look up
# only. Answers one string for each, because a client parses few long ones faster than many short
# ones: '-' missing, 'e' and what suppresses it (erased at ms, ':' and the erasure), or 'f' (fresh)
# or 'p', pid, wrapped key. Of one who signed up after an erasure: 'g' (fresh) or 'r', pid, 16
# digits of erased at ms, wrapped key. After candidates also how many rows were ever made.
# Given a candidate, a fresh row is touched: WAITAOF covers only what its own connection wrote.
RESOLVE = """
local prefix, fresh, step = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local mark = redis.call('HMGET', prefix .. 'mark', 'id', 'made')
if ARGV[4] ~= '' and (mark[1] ~= ARGV[4] or tonumber(mark[2] or 0) < tonumber(ARGV[5])) then
  return redis.error_reply('VAULTLOST')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers, made = {}, 0
for i = 6, #ARGV, step do
  local hash, candidate = ARGV[i], step == 5 and ARGV[i + 1]
  local erased = redis.call('GET', prefix .. 'suppressed:' .. hash)
  local pid = redis.call('GET', prefix .. 'id:' .. hash)
  local old, new, since = 'p', 'f', ''
  local erased_ms = erased and tonumber(string.match(erased, '^%d+'))
  if erased then
    old, new, since = 'r', 'g', string.format('%016d', erased_ms)
  end
  local answer = '-'
  if pid then
    local row = prefix .. 'key:' .. pid
    local held = redis.call('HMGET', row, 'k', 'c')
    local kind = old
    if now - tonumber(held[2] or 0) < fresh then
      kind = new
      if candidate then redis.call('HSET', row, 'c', held[2]) end
    end
    answer = kind .. pid .. since .. (held[1] or '')
  elseif erased and not (candidate and tonumber(ARGV[i + 4]) > erased_ms) then
    answer = 'e' .. erased
  elseif candidate then
    redis.call('HSET', prefix .. 'key:' .. candidate,
               'k', ARGV[i + 2], 'i', ARGV[i + 3], 'c', string.format('%d', now))
    redis.call('SET', prefix .. 'id:' .. hash, candidate)
    made = made + 1
    answer = new .. candidate .. since .. ARGV[i + 2]
  end
  answers[#answers + 1] = answer
end
if step == 5 then
  answers[#answers + 1] = tostring(redis.call('HINCRBY', prefix .. 'mark', 'made', made))
end
return answers
"""
RESOLVE_SHA = sha1(RESOLVE.encode(), usedforsecurity=False).hexdigest()

# Arguments: prefix, id. The first to come decides.
BEGIN = "return redis.call('HSETNX', ARGV[1] .. 'mark', 'id', ARGV[2])"

# Arguments: prefix, hash, erased at ms, id of the erasure or "", pid to erase or "" for whoever is
# there, '1' if it is for being idle. Answers the pid that was behind the identifier. Somebody who
# signed up since has another pid, and keeps it. The erasure's row is told whose it is: nothing else
# leads back to the person.
SUPPRESS = """
local prefix, hash, erased_ms, erasure, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local row, by = prefix .. 'id:' .. hash, erased_ms
if erasure ~= '' then
  by = by .. ':' .. erasure .. (ARGV[6] == '1' and ':idle' or '')
  redis.call('HSET', prefix .. 'erasure:' .. erasure, 'subject', hash)
end
local suppressed = prefix .. 'suppressed:' .. hash
local had = redis.call('GET', suppressed)
if not had or tonumber(string.match(had, '^%d+')) <= tonumber(erased_ms) then
  redis.call('SET', suppressed, by)
end
local function forget(pid)
  local claims, claimed = prefix .. 'claims:' .. pid, prefix .. 'claimed:' .. pid
  for _, field in ipairs(redis.call('HKEYS', claims)) do
    redis.call('SREM', prefix .. 'claimed:' .. string.sub(field, 1, 32), pid)
  end
  for _, other in ipairs(redis.call('SMEMBERS', claimed)) do
    redis.call('HDEL', prefix .. 'claims:' .. other, pid .. 'c', pid .. 'h')
  end
  redis.call('DEL', prefix .. 'key:' .. pid, prefix .. 'consent:' .. pid, claims, claimed)
end
if expected ~= '' then forget(expected) end
local pid = redis.call('GET', row)
if pid and (expected == '' or pid == expected) then
  redis.call('DEL', row)
  forget(pid)
  return pid
end
return false
"""

LAYOUT = (
    Layout(
        "id:{hash}",
        "vault",
        "until the person is erased",
        (held("value", "identifier", _PEOPLE, "Pseudonym behind the keyed hash of an identifier"),),
    ),
    Layout(
        "key:{pid}",
        "vault",
        "until the person is erased",
        (
            held("k", "technical", "operation", "The person's data key, wrapped"),
            held("i", "identifier", _PEOPLE, "The identifier that the row is for", sealed=True),
            held("c", "technical", "operation", "When the row was made"),
        ),
    ),
    Layout(
        "suppressed:{hash}",
        "vault",
        "for good: it keeps erased people from coming back",
        (
            held(
                "value",
                "technical",
                "accountability",
                "When and by which erasure it was erased",
            ),
        ),
    ),
    Layout(
        "mark",
        "vault",
        "as long as the vault",
        (
            held("id", "technical", "operation", "Name of this vault"),
            held("made", "technical", "operation", "How many rows it ever made"),
        ),
    ),
)
"""What this module's scripts write."""

Identifier = tuple[IdType, str]
Answers = Sequence[bytes]
_MISSING, _ERASED = b"-", b"e"
_FRESH = (b"f", b"g")
_RETURNED = (b"g", b"r")
_PID_END = 1 + 2 * PID_BYTES
_SINCE_END = _PID_END + 16


@dataclass(frozen=True, slots=True)
class Suppressed:
    """The identifier's person was erased then; nothing of theirs may be kept."""

    erased_at_ms: int
    erasure_id: bytes | None = None
    is_idle: bool = False
    """Only because nothing was heard of them: whatever they do next lets them in."""


Resolved = Person | Suppressed


@dataclass(frozen=True, slots=True)
class Erased:
    """Who is to be gone: `subject` is the hash of the identifier, `pid` was behind it."""

    subject: str
    pid: bytes
    erased_at_ms: int
    erasure_id: bytes
    is_idle: bool = False


class Batch:
    """Identifiers on their way through the script: once to look up, once more where needed."""

    def __init__(
        self,
        ring: KeyRing,
        prefix: str,
        identifiers: Sequence[Identifier],
        mark: bytes = b"",
        made: int = 0,
        signed_up_at_ms: Mapping[Identifier, int] = MappingProxyType({}),
    ) -> None:
        self._ring = ring
        self._given = identifiers
        self._signed_up = [signed_up_at_ms.get(identifier, 0) for identifier in identifiers]
        self._identifiers = [canonical(*identifier) for identifier in identifiers]
        self._hashes = [ring.hash_of(*identifier) for identifier in self._identifiers]
        self._head: tuple[str, str] = (prefix, str(FRESH_MS))
        self._known: tuple[bytes, str] = (mark, str(made))
        self._found: list[Resolved | None] = [None] * len(identifiers)
        self._unsure: list[int] = []

    def look_up(self) -> list[str | bytes]:
        """Arguments of the first pass, which creates nothing."""
        return [*self._head, "1", *self._known, *self._hashes]

    def note_look_up(
        self, answers: Answers, heard_at_ms: Callable[[], Mapping[Identifier, int]] = dict
    ) -> bool:
        """Take the first answers; True if a second pass must create rows or see them durable.

        `heard_at_ms` tells when anything of somebody happened last; asked only if one was idle.
        """
        idle: list[int] = []
        for at, answer in enumerate(answers):
            if answer != _MISSING:
                found = self._found[at] = self._read(answer)
                if isinstance(found, Suppressed):
                    if found.erased_at_ms < self._signed_up[at]:
                        self._unsure.append(at)
                    elif found.is_idle:
                        idle.append(at)
                    continue
            if answer[:1] == _MISSING or answer[:1] in _FRESH:
                self._unsure.append(at)
        heard = heard_at_ms() if idle else {}
        for at in idle:
            self._signed_up[at] = heard.get(self._given[at], 0)
            erased = self._found[at]
            if isinstance(erased, Suppressed) and erased.erased_at_ms < self._signed_up[at]:
                self._unsure.append(at)
        return bool(self._unsure)

    def create(self) -> list[str | bytes]:
        """Arguments of the second pass: a candidate for each row that is missing or fresh."""
        args: list[str | bytes] = [*self._head, "5", *self._known]
        for at in self._unsure:
            person, wrapped = self._ring.new_person()
            sealed = person.seal_identifier(frame(*self._identifiers[at]))
            signed_up = str(self._signed_up[at])
            args += (self._hashes[at], person.pid.hex(), wrapped, sealed, signed_up)
        return args

    def note_create(self, answers: Answers) -> int:
        """Take the second answers; how many rows the vault ever made."""
        *rows, made = answers
        for at, answer in zip(self._unsure, rows, strict=True):
            self._found[at] = self._read(answer)
        return int(made)

    @property
    def found(self) -> list[Resolved | None]:
        """For each identifier in order; None for one that has no row."""
        return self._found

    @property
    def resolved(self) -> list[Resolved]:
        """For each identifier in order, once both passes are through."""
        assert None not in self._found
        return [found for found in self._found if found is not None]

    def _read(self, answer: bytes) -> Resolved:
        if answer[:1] == _ERASED:
            at_ms, erasure_id, idle = [*answer[1:].split(b":"), b"", b""][:3]
            return Suppressed(int(at_ms), bytes.fromhex(erasure_id.decode()) or None, bool(idle))
        pid, wrapped = bytes.fromhex(answer[1:_PID_END].decode()), answer[_PID_END:]
        erased_before_ms = 0
        if answer[:1] in _RETURNED:
            erased_before_ms, wrapped = int(answer[_PID_END:_SINCE_END]), answer[_SINCE_END:]
        if not wrapped:
            raise StoreRefused(
                f"the vault has lost the data key of pid {pid.hex()}; restore its latest backup"
            )
        person = self._ring.person(pid, wrapped)
        person.erased_before_ms = erased_before_ms
        return person


def canonical(id_type: IdType, external_id: str) -> Identifier:
    """The spelling under which an identifier is hashed and kept."""
    if id_type == "email":
        return id_type, spelled_email(external_id)
    if id_type == "phone":
        return id_type, phone_of(external_id) or external_id
    return id_type, external_id


def identified(ring: KeyRing, pid: bytes, row: Sequence[Any]) -> tuple[Person, str, str] | None:
    """A `key:` row (`k`, `i`) as person, identifier type and identifier; None without a row."""
    wrapped, sealed = row
    if not wrapped:
        return None
    person = ring.person(pid, wrapped)
    return person, *unframe(person.unseal_identifier(sealed))


def require_durable(answer: Sequence[int]) -> None:
    """Raise StoreUnavailable unless WAITAOF answered that the local disk has it."""
    if answer[0] < 1:
        raise StoreUnavailable("the vault's server did not bring its writes to disk in time")


MEMORY = ("INFO", "memory")


def require_kept(memory: Mapping[str, Any]) -> None:
    """Raise StoreRefused if the server, by its answer to MEMORY, forgets rows when memory ends."""
    policy = str(memory.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise StoreRefused(
            f"the vault's server forgets people when its memory is full: its maxmemory-policy is "
            f"{policy}; set it to noeviction"
        )
