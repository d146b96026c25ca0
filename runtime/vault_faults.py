"""What does an error of the vault's server mean for whoever asked?

Either it passes (StoreUnavailable), or a person must act (StoreRefused). No text of the server gets
out: it may quote an argument, and arguments are people.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from schemas.errors import StoreRefused, StoreUnavailable

# The server is there but takes no writes now. Some errors have a class, and their word is cut off.
_PASSING = ("MISCONF", "NOREPLICAS", "BUSY")
_PASSING_CLASSES = (MasterDownError, OutOfMemoryError, ReadOnlyError)

LOST = (
    "the vault has lost rows that it had, or is another one; restore its latest backup "
    "(docs/reliability.md)"
)


@contextmanager
def faults() -> Iterator[None]:
    """Turn the client's errors into ours, without their text: it may quote an argument."""
    try:
        yield
    except AuthenticationError:
        raise StoreRefused(
            "the vault's server refused our user or password; check [vault] url"
        ) from None
    except (redis.ConnectionError, redis.TimeoutError, BusyLoadingError, OSError) as error:
        raise StoreUnavailable(f"the vault does not answer ({type(error).__name__})") from None
    except _PASSING_CLASSES as error:
        raise StoreUnavailable(f"the vault takes no writes now ({type(error).__name__})") from None
    except ResponseError as error:
        word = str(error).split(" ", 1)[0]
        if word in _PASSING:
            raise StoreUnavailable(f"the vault takes no writes now ({word})") from None
        if word == "VAULTLOST":
            raise StoreRefused(LOST) from None
        if "WAITAOF" in str(error) or "appendonly" in str(error):
            raise StoreRefused(
                "the vault's server cannot promise that a write is on disk: it needs Redis or "
                "Valkey 7.2 with appendonly yes; or set [vault] durable_writes = false and accept "
                "that a power cut loses the newest people"
            ) from None
        raise StoreRefused(f"the vault's server said no ({word})") from None
