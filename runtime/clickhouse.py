"""How do roles talk to ClickHouse, and what does its answer mean for them?

One client, one dialect: a real server or the embedded engine, over HTTP. Every fault of it becomes
StoreUnavailable (wait and ask again) or StoreRefused (our bug or a broken promise: stop).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DataError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
)
from urllib3.exceptions import HTTPError

from runtime.settings import Settings
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable

CONNECT_WITHIN_S = 5
ANSWER_WITHIN_S = 60

CLIENT_SETTINGS: Mapping[str, str | int] = {
    # 1 is the server's default: it acknowledges before the rows are in a part.
    "async_insert": 0,
    # A block equal to an earlier one is not a repeated one: two equal minutes are both to be kept.
    "insert_deduplicate": 0,
}

REFUSALS = frozenset(
    {
        6,  # cannot parse text
        16,  # no such column
        20,  # number of columns does not match
        27,  # cannot parse input
        36,  # bad arguments
        43,  # illegal type of argument
        44,  # illegal column
        46,  # unknown function
        47,  # unknown identifier
        50,  # unknown type
        53,  # type mismatch
        60,  # unknown table
        62,  # syntax error
        70,  # cannot convert type
        81,  # unknown database
        115,  # unknown setting
        117,  # incorrect data
        192,  # unknown user
        193,  # wrong password
        194,  # password required
        497,  # access denied
        516,  # authentication failed
    }
)
"""Codes that an unchanged request meets for ever. Any other may pass, so we wait."""

NOT_MADE = frozenset({60, 81})
"""Codes that say that tables or the database are not there yet."""


def connect(
    settings: Settings,
    *,
    database: str | None = None,
    answer_within_s: float = ANSWER_WITHIN_S,
) -> Client:
    """A client of the configured database (or `database`; "" is the server's default).

    What takes longer than `answer_within_s` is given up as StoreUnavailable. May be used by one
    thread at a time. Raises StoreUnavailable when nobody answers, StoreRefused when we may not
    enter.
    """
    if not settings.clickhouse.url:
        raise SettingInvalid(
            "[clickhouse] url is not set; add it to headwater.toml, set HEADWATER_CLICKHOUSE_URL, "
            "or start with `headwater up`"
        )
    url = urlsplit(settings.clickhouse.url)
    is_tls = url.scheme == "https"
    with answering("connecting"):
        return clickhouse_connect.get_client(
            host=url.hostname or "localhost",
            port=url.port or (8443 if is_tls else 8123),
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password or ""),
            secure=is_tls,
            database=settings.clickhouse.database if database is None else database,
            connect_timeout=CONNECT_WITHIN_S,
            send_receive_timeout=round(answer_within_s),
            # Statements of one client then do not queue behind each other in a session.
            autogenerate_session_id=False,
            # Compressing costs more than loopback or a data centre's network saves.
            compress=False,
            settings=dict(CLIENT_SETTINGS),
            # The caller decides whether and when to ask again.
            query_retries=0,
        )


@contextmanager
def answering(asked: str) -> Iterator[None]:
    """Turn every fault of the client inside into ours; `asked` says what for, without values."""
    try:
        yield
    except (DataError, ProgrammingError, InterfaceError) as error:
        raise StoreRefused(f"ClickHouse client refused {asked}: {_brief(error)}") from error
    except OperationalError as error:
        raise StoreUnavailable(f"ClickHouse did not answer {asked}: {_brief(error)}") from error
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        if code in REFUSALS:
            remedy = "; run `headwater topics`" if code in NOT_MADE else ""
            raise StoreRefused(f"ClickHouse refused {asked}: {_brief(error)}{remedy}") from error
        raise StoreUnavailable(f"ClickHouse failed at {asked}: {_brief(error)}") from error
    except (HTTPError, OSError) as error:
        raise StoreUnavailable(f"ClickHouse did not answer {asked}: {_brief(error)}") from error


def literal(text: str) -> str:
    """`text` as a string literal of ClickHouse's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0")
    return f"'{escaped}'"


def _brief(error: BaseException) -> str:
    # ClickHouse quotes rows at length in some messages: those may hold a campaign's name, never a
    # person's value, and the first line says what is wrong.
    return f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"[:400]
