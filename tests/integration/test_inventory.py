"""What is held of people is read from the schemas, the tables and the code that writes keys."""

from clickhouse_connect.driver.client import Client

from schemas.held import column
from sinks.migrations.apply import apply_migrations


def test_every_column_of_every_table_says_what_it_holds(clickhouse: Client) -> None:
    assert clickhouse.database is not None
    apply_migrations(clickhouse, clickhouse.database)
    rows = clickhouse.query(
        "SELECT table, name, comment FROM system.columns WHERE database = {database:String}",
        {"database": clickhouse.database},
    ).result_rows
    assert {"facts", "counters", "progress", "verdicts", "migrations"} <= {row[0] for row in rows}
    unsaid = [
        f"{table}.{name}" for table, name, comment in rows if not column(name, comment).data_class
    ]
    assert not unsaid, f"COMMENT of these must begin 'CLASS for PURPOSE: ' ({unsaid})"
