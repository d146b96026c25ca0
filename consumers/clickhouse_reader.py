"""How do the APIs ask ClickHouse without stopping while it is away?

One client for the process, made at the first question, so that the API starts before ClickHouse
does and survives its restarts. Queries are constants with bound parameters ({name:Type}); no text
of a request ever becomes a part of one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient

from runtime.clickhouse import CLIENT_SETTINGS, CONNECT_WITHIN_S, answering
from runtime.settings import ClickHouse
from schemas.errors import StoreRefused, StoreUnavailable

ANSWER_WITHIN_S = 30
_NOT_MADE_YET = {60: "table", 81: "database"}
"""ClickHouse's codes for what `headwater topics` has yet to make."""


class ClickHouseReader:
    """Asks questions of one database. Any number of them may be under way."""

    def __init__(self, settings: ClickHouse) -> None:
        self._settings = settings
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()

    async def rows(
        self, query: str, parameters: Mapping[str, object] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Rows of the answer.

        Raises StoreUnavailable when ClickHouse or our tables are not there (yet), StoreRefused when
        it does not accept the question.
        """
        try:
            with answering("a question of the API"):
                client = await self._connected()
                answer = await client.query(query, parameters=dict(parameters or {}))
        except StoreRefused as refusal:
            lacking = _NOT_MADE_YET.get(getattr(refusal.__cause__, "code", None) or 0)
            if lacking is None:
                raise
            raise StoreUnavailable(
                f"ClickHouse has no such {lacking} yet; run headwater topics"
            ) from refusal
        except aiohttp.ClientError as error:
            raise StoreUnavailable("ClickHouse broke off its answer") from error
        return answer.result_rows

    async def insert(
        self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[object]]
    ) -> None:
        """The rows, whose `columns` are of these types, are in a part that is on disk. Raises as
        `rows` does."""
        try:
            with answering(f"an insert of {len(rows)} rows into {table}"):
                client = await self._connected()
                await client.insert(
                    table,
                    rows,
                    column_names=list(columns),
                    column_type_names=list(columns.values()),  # else it asks for them each time
                    settings=dict(CLIENT_SETTINGS),
                )
        except aiohttp.ClientError as error:
            raise StoreUnavailable("ClickHouse broke off its answer") from error

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await clickhouse_connect.get_async_client(
                    dsn=self._settings.url,
                    database=self._settings.database,
                    connect_timeout=CONNECT_WITHIN_S,
                    send_receive_timeout=ANSWER_WITHIN_S,
                    query_retries=0,
                )
            return self._client
