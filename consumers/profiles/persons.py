"""Whose fact is it, when one person has several pids?

A link that is in force (sinks/rules/links.py) says that the facts of a member are of the person
that its root stands for; anybody else is their own person. Links come flattened, so one look leads
to the root. While a lane has told that a member came and another not yet that it left, two roots
claim it: the smaller counts, in every answer.
"""

from consumers.clickhouse_reader import ClickHouseReader

_HAS_LINKS = "SELECT count() FROM links"

# As numbers, because these are told apart faster. Rows of one pair are of one partition, so the
# newest is that of the highest place.
_PERSON_OF = """
SELECT member, min(root) AS person
FROM
(
    SELECT reinterpretAsUInt128(root) AS root, reinterpretAsUInt128(member) AS member
    FROM links WHERE {in_sight}
    GROUP BY root, member
    HAVING argMax(is_linked, bitShiftLeft(toUInt128(generation), 64) + off)
)
GROUP BY member
"""

PERSON = "if(known.person = 0, reinterpretAsUInt128(facts.pid), known.person)"
"""Of a row of `facts` joined by `known_persons`: the person, as a number."""

JOINED_SO = "SETTINGS join_algorithm = 'hash'"
"""At the end of a statement with `known_persons`: by default each fact would be sent to one of many
small tables first, which takes longer than looking it up."""


def known_persons(in_sight: str = "1") -> str:
    """What joins `facts` with the persons that they are of, by the links that are `in_sight`."""
    return (
        f"LEFT ANY JOIN ({_PERSON_OF.format(in_sight=in_sight)}) AS known "
        "ON reinterpretAsUInt128(facts.pid) = known.member"
    )


async def has_links(reader: ClickHouseReader) -> bool:
    """False while every pid is a person of its own: then nothing needs to be joined.

    Raises StoreUnavailable.
    """
    ((links,),) = await reader.rows(_HAS_LINKS)
    return int(links) > 0
