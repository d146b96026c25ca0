"""As whose are a pid's facts counted, told to the person?

The rows of `links` (sinks/rules/links.py) in which one of her pids joins another, or leaves it. The
salt of a row is not told: it names rows that are anonymous by then, also of others.
"""

from collections.abc import Mapping

from consumers.clickhouse_reader import ClickHouseReader
from consumers.exports.person_claims import SOMEBODY_ELSE
from consumers.rules.export_view import Item

_LINKS = """
SELECT lower(hex(root)), lower(hex(member)), is_linked, by_erasure, generation, kp, off
FROM links FINAL
WHERE root = unhex({pid:String}) OR member = unhex({pid:String})
ORDER BY generation, kp, off
"""


async def links_of(
    reader: ClickHouseReader, pid: bytes, names: Mapping[bytes, str], topic: str
) -> list[Item]:
    """Each row, oldest first; one between two of the person's pids, which have `names`, under its
    member only. `topic` has the records. Raises StoreUnavailable."""
    rows = [
        (bytes.fromhex(str(root)), bytes.fromhex(str(member)), [int(each) for each in told])
        for root, member, *told in await reader.rows(_LINKS, {"pid": pid.hex()})
    ]
    # Of one root all are of one partition: the later row stands further back.
    newest = {(root, member): told[2:] for root, member, told in rows}
    return [
        {
            "identifier": names.get(member, SOMEBODY_ELSE),
            "counts_as": names.get(root, SOMEBODY_ELSE),
            "says": "joins" if is_linked else "leaves",
            "because_erased": bool(by_erasure),
            "is_newest": newest[root, member] == place,
            "where": f"table links, of generation {place[0]}",
            "source_record": f"{topic}[{place[1]}]@{place[2]}",
        }
        for root, member, (is_linked, by_erasure, *place) in rows
        if member == pid or member not in names
    ]
