"""How long does each table keep its rows, and is that what was configured?

ClickHouse deletes by itself what is past a table's TTL; this sets the TTL to what `[tables.*]`
says, also of a table that was made with another. Facts have none: the counters are verified from
them, so they stay until their person is erased. Counters are of nobody.
"""

import re

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering
from runtime.settings import Tables

AGES_FROM = {"accesses": "read_at", "verdicts": "checked_at"}
"""Table -> the column from which its rows grow old."""

_TTL = re.compile(r"TTL toDateTime\(\w+\) \+ toIntervalDay\((\d+)\)")


def limits_in_force(client: Client, database: str) -> dict[str, int | None]:
    """Every table of `database` -> the days that its rows are kept; None without a limit."""
    with answering("how long tables keep their rows"):
        rows = client.query(
            "SELECT name, engine_full FROM system.tables WHERE database = {database:String}",
            {"database": database},
        ).result_rows
    found = {name: _TTL.search(engine) for name, engine in rows}
    return {name: int(ttl[1]) if ttl else None for name, ttl in found.items()}


def align_tables(client: Client, database: str, tables: Tables) -> list[str]:
    """Every table keeps its rows as long as configured; what was changed, one line each.

    Rows that are too old then go when ClickHouse next merges them. Raises StoreUnavailable or
    StoreRefused.
    """
    said = []
    in_force = limits_in_force(client, database)
    for name, column in AGES_FROM.items():
        days = getattr(tables, name).retention_days
        if in_force.get(name) == days:
            continue
        with answering(f"to change how long {name} keeps its rows"):
            # Names are constants of this module, a setting's pattern, and a number.
            client.command(
                f"ALTER TABLE {database}.{name} MODIFY TTL toDateTime({column}) "
                f"+ INTERVAL {int(days)} DAY"
            )
        said.append(f"{name}: kept for {in_force.get(name)} days before, for {days} now")
    return said
