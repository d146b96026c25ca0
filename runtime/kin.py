"""Which pids are one person, as far as the vault has been told?

The log is the record, and the lanes decide by it (schemas/identity.py). Whoever records a decision,
erases, shows or sends must reach every pid of the person at once, and cannot wait for a lane. So a
claim is also here, on disk, before its call is answered: `claims:<pid>` is a hash of the claims on
that pid, one field a claimant and way (`c` a call, `h` a decision by hand), one line a claim: rank,
when (ms), event id, cause, when it was written (ms). `claimed:<pid>` is the set of pids that it
claims. Of each field the script keeps what schemas.identity.with_claim keeps, so the order in which
claims come does not matter here either. All of it goes with either of the two people
(runtime/vault_rows.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.vault_faults import faults
from runtime.vault_rows import FRESH_MS, require_durable
from schemas.errors import PersonTooLarge, StoreRefused
from schemas.held import Layout, held
from schemas.identity import Claim, standing

MOST_PIDS = 1000
"""Of one person; so many can be reached in one request."""
MOST_CLAIMED = 500
"""By one pid through calls: whoever has a write key could else make a person without end."""
BY_HAND = frozenset({"linked", "revoked"})
_REVOKE = "headwater identity SUBJECT --revoke OTHER"
_WAITAOF = ("WAITAOF", 1, 0, 4000)

# Arguments: prefix, claimed pid, claimant, way ('c' or 'h'), ms, event id, rank, cause. Answers 0,
# and does nothing, if one of the two has no row: erased meanwhile. A line that is there already is
# written all the same: WAITAOF covers only what its own connection wrote.
PUT = """
local prefix, claimed, claimant, way = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ms, event = tonumber(ARGV[5]), ARGV[6]
if redis.call('EXISTS', prefix .. 'key:' .. claimed, prefix .. 'key:' .. claimant) < 2 then
  return 0
end
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local line = table.concat({ARGV[7], ARGV[5], event, ARGV[8], now}, ' ')
local row, field = prefix .. 'claims:' .. claimed, claimant .. way
local old = redis.call('HGET', row, field)
if old then
  local had_ms, had_event, had_cause = string.match(old, '^%d+ (%-?%d+) (%x+) (%a+)')
  had_ms = tonumber(had_ms)
  local is_earlier = had_ms < ms
  if had_ms == ms then
    is_earlier = had_event < event or (had_event == event and had_cause <= ARGV[8])
  end
  if is_earlier == (way == 'c') then line = old end
end
redis.call('HSET', row, field, line)
redis.call('SADD', prefix .. 'claimed:' .. claimant, claimed)
return 1
"""

LAYOUT = (
    Layout(
        "claims:{pid}",
        "vault",
        "until the person is erased",
        (
            held(
                "{claimant}{way}",
                "identifier",
                "analytics, personalisation, accountability",
                "Pid that a call, or somebody by hand, said this one belongs to, and when",
            ),
        ),
    ),
    Layout(
        "claimed:{pid}",
        "vault",
        "until the person is erased",
        (
            held(
                "value",
                "identifier",
                "analytics, personalisation, accountability",
                "Pids that were said to belong to this one",
            ),
        ),
    ),
)
"""What this module's script writes."""

Claimed = tuple[bytes, Claim]
"""A pid, and a claim on it."""


@dataclass(frozen=True, slots=True)
class Bonds:
    """Of one pid: the claims on it, and the pids that it claims, whether they stand or not."""

    claims: Sequence[Claim] = ()
    claimed: frozenset[bytes] = frozenset()


class Walk:
    """From some pids to the whole of their people, over standing claims alone; reads nothing.

    Whoever walks reads what is `wanted` and notes it, until nothing is; then there are `people`.
    """

    def __init__(self, pids: Iterable[bytes]) -> None:
        self._asked = frozenset(pids)
        self._inside = set(self._asked)
        self._known: dict[bytes, Bonds] = {}

    @property
    def wanted(self) -> set[bytes]:
        """Pids whose bonds must be known to go on."""
        reached = set(self._inside)
        for pid in self._inside & self._known.keys():
            reached |= self._known[pid].claimed
        return reached - self._known.keys()

    def note(self, bonds: Mapping[bytes, Bonds]) -> None:
        """What is known of them. Raises PersonTooLarge when one has more than MOST_PIDS."""
        self._known.update(bonds)
        while more := self._next() - self._inside:
            self._inside |= more
            if len(self._inside) > MOST_PIDS * len(self._asked):
                raise _too_many()

    def people(self) -> dict[bytes, tuple[bytes, ...]]:
        """Of each pid that was asked for every pid of its person, the root first, then sorted.

        Raises PersonTooLarge when one has more than MOST_PIDS.
        """
        members: dict[bytes, list[bytes]] = {}
        for pid in sorted(self._inside):
            members.setdefault(self._root_of(pid), []).append(pid)
        if any(len(each) > MOST_PIDS for each in members.values()):
            raise _too_many()
        found = {}
        for pid in self._asked:
            root = self._root_of(pid)
            found[pid] = (root, *(each for each in members[root] if each != root))
        return found

    def _next(self) -> set[bytes]:
        """One step up and one down from everybody inside, as far as they are known."""
        found: set[bytes] = set()
        for pid in self._inside & self._known.keys():
            up = self._claimant_of(pid)
            if up is not None:
                found.add(up)
            found |= {each for each in self._known[pid].claimed if self._claimant_of(each) == pid}
        return found

    def _root_of(self, pid: bytes) -> bytes:
        passed = {pid}
        while (up := self._claimant_of(pid)) is not None:
            if up in passed:
                raise PersonTooLarge(
                    f"claims of before ADR 0035 go in a circle; revoke one by hand ({_REVOKE})"
                )
            passed.add(pid := up)
        return pid

    def _claimant_of(self, pid: bytes) -> bytes | None:
        bonds = self._known.get(pid)
        found = standing(bonds.claims) if bonds is not None and bonds.claims else None
        return None if found is None else found.claimant


class Kin:
    """Claims in the vault, over a client that somebody else closes; for its event loop.

    Every method raises StoreUnavailable or StoreRefused as the vault does.
    """

    def __init__(self, client: Any, key_prefix: str, *, is_durable: bool) -> None:
        self._client = client
        self._prefix = key_prefix
        self._is_durable = is_durable

    async def people_of(self, pids: Iterable[bytes]) -> dict[bytes, tuple[bytes, ...]]:
        """Of each pid every pid of its person, itself included, the root first.

        One question to the server where nobody claims anybody, two or three for most others.
        Raises PersonTooLarge too.
        """
        walk = Walk(pids)
        while wanted := walk.wanted:
            walk.note(await self.bonds_of(wanted))
        return walk.people()

    async def people_found(self, pids: Iterable[bytes]) -> dict[bytes, tuple[bytes, ...]]:
        """As people_of, without those who are too large: whoever has a write key can make one of
        them so, and that is no reason to stop for all others."""
        wanted = list(pids)
        try:
            return await self.people_of(wanted)
        except PersonTooLarge:
            half = len(wanted) // 2
            if not half:
                return {}
        return await self.people_found(wanted[:half]) | await self.people_found(wanted[half:])

    async def pids_of(self, pid: bytes) -> tuple[bytes, ...]:
        """The same of one."""
        return (await self.people_of([pid]))[pid]

    async def bonds_of(self, pids: Iterable[bytes]) -> dict[bytes, Bonds]:
        """What is known of each pid itself."""
        wanted = list(pids)
        pipe = self._client.pipeline(transaction=False)
        for pid in wanted:
            pipe.hgetall(self._key("claims", pid))
            pipe.smembers(self._key("claimed", pid))
        with faults():
            answers = await pipe.execute()
        rows = zip(answers[::2], answers[1::2], strict=True)
        try:
            return {
                pid: Bonds(
                    [_parse(field, line)[0] for field, line in sorted(claims.items())],
                    frozenset(bytes.fromhex(each.decode()) for each in claimed),
                )
                for pid, (claims, claimed) in zip(wanted, rows, strict=True)
            }
        except ValueError:
            raise StoreRefused("who belongs together cannot be read in the vault") from None

    async def news_among(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Those of calls that say more than is known, and may be put.

        One that was written a moment ago counts as unknown: its writer may not have seen it on disk
        yet, and was perhaps told 503. A claimant of MOST_CLAIMED gets no more by calls, and nobody
        gets whom they belong to, as by words of before ADR 0035: both would be nobody's.
        """
        if not claims:
            return []
        pipe = self._client.pipeline(transaction=False)
        pipe.time()
        for pid, claim in claims:
            pipe.hget(self._key("claims", pid), f"{claim.claimant.hex()}c")
            pipe.scard(self._key("claimed", claim.claimant))
            pipe.sismember(self._key("claimed", pid), claim.claimant.hex())
        with faults():
            (seconds, micros), *answers = await pipe.execute()
        now_ms = seconds * 1000 + micros // 1000
        news = []
        for each, line, claimed, is_the_other_way in zip(
            claims, answers[::3], answers[1::3], answers[2::3], strict=True
        ):
            if line is None:
                if claimed < MOST_CLAIMED and not is_the_other_way:
                    news.append(each)
                continue
            known, written_ms = _parse(each[1].claimant.hex().encode() + b"c", line)
            is_known = (known.occurred_at_ms, known.event_id) <= (
                each[1].occurred_at_ms,
                each[1].event_id,
            )
            if not is_known or now_ms - written_ms < FRESH_MS:
                news.append(each)
        return news

    async def put(self, claims: Sequence[Claimed]) -> None:
        """All of them are known, and on disk where the server promises that.

        But for those of whom one of the two was erased meanwhile. Repeating it changes nothing.
        """
        if not claims:
            return
        pipe = self._client.pipeline(transaction=False)
        for pid, claim in claims:
            way = "h" if claim.cause in BY_HAND else "c"
            stamp = (str(claim.occurred_at_ms), claim.event_id.hex())
            what = (str(claim.rank), claim.cause)
            pipe.eval(PUT, 0, self._prefix, pid.hex(), claim.claimant.hex(), way, *stamp, *what)
        if self._is_durable:
            # On the same connection: it waits for that connection's writes.
            pipe.execute_command(*_WAITAOF)
        with faults():
            answers = await pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])

    def _key(self, kind: str, pid: bytes) -> str:
        return f"{self._prefix}{kind}:{pid.hex()}"


def _parse(field: bytes, line: bytes) -> tuple[Claim, int]:
    """The claim of a line, and when it was written (ms)."""
    rank, at_ms, event_id, cause, written_ms = line.decode().split(" ")
    claimant = bytes.fromhex(field[:-1].decode())
    claim = Claim(claimant, int(rank), int(at_ms), bytes.fromhex(event_id), cause)
    return claim, int(written_ms)


def _too_many() -> PersonTooLarge:
    return PersonTooLarge(
        f"a person with more than {MOST_PIDS} identifiers cannot be treated as one; revoke claims "
        f"by hand ({_REVOKE})"
    )
