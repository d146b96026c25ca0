"""Which tables must ClickHouse have, and which changes has it seen?

Numbered SQL files beside this module, applied in order and once; each statement may be repeated, so
that a crash between a file and its mark in the table `migrations` harms nothing.
"""

from importlib import resources

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering

_MARKS = """
CREATE TABLE IF NOT EXISTS {database}.migrations
(
    number UInt32 COMMENT 'technical for operation: Number of the table change',
    name String COMMENT 'technical for operation: Its file',
    applied_at DateTime('UTC') DEFAULT now() COMMENT 'technical for operation: When it was applied'
)
ENGINE = ReplacingMergeTree
ORDER BY number
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""


def migrations() -> list[tuple[int, str, list[str]]]:
    """(number, file name, statements) of every migration, in order."""
    found = []
    for file in resources.files("sinks.migrations").iterdir():
        if file.name.endswith(".sql"):
            lines = file.read_text("utf-8").splitlines()
            code = "\n".join(line for line in lines if not line.startswith("--"))
            statements = [text.strip() for text in code.split(";\n") if text.strip(" ;\n")]
            found.append((int(file.name.split("_")[0]), file.name, statements))
    return sorted(found)


def apply_migrations(client: Client, database: str) -> list[str]:
    """`database` has every table of ours; the names of the files that were applied just now.

    `client` may stand in any database. Raises StoreUnavailable or StoreRefused.
    """
    applied = []
    with answering("to create the tables"):
        client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        client.command(_MARKS.format(database=database))
        # A setting's pattern allows letters, digits and underscores in the name only.
        marks = f"SELECT number FROM {database}.migrations FINAL"  # noqa: S608
        rows = client.query(marks).result_rows
        known = {row[0] for row in rows}
        before = client.database
        client.database = database
        try:
            for number, name, statements in migrations():
                if number in known:
                    continue
                for statement in statements:
                    client.command(statement)
                client.insert("migrations", [[number, name]], column_names=["number", "name"])
                applied.append(name)
        finally:
            client.database = before
    return applied
