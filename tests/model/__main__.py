"""python -m tests.model lanes|counters|profiles|journeys FIRST END: run seeds; a broken one ends it.

Or journeys_sent FIRST END REDIS_URL PEOPLE, which sends mails to so many. Exit code 0 when every promise
was kept, 3 when one was broken.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mailing import mail_server
from tests.model import runners
from tests.model.schedules import describe
from tests.model.shop_post import shop_settings

DEATHS = 0.05


def main() -> int:
    model, first, end, *more = sys.argv[1:]
    with pytest.MonkeyPatch.context() as patch, _runner(patch, model, more) as run:
        for seed in range(int(first), int(end)):
            broken, _ = run(seed)
            if broken:
                print(describe(seed, broken, model))
                return 3
    print(f"kept: {model} {first} {end}")
    return 0


@contextmanager
def _runner(
    patch: pytest.MonkeyPatch, model: str, more: Sequence[str]
) -> Iterator[Callable[[int], tuple[set[str], Any]]]:
    if model != "journeys_sent":
        yield getattr(runners, model)(patch)
        return
    redis_url, people = more
    with mail_server() as (mailbox, port), tempfile.TemporaryDirectory() as directory:
        yield runners.journeys_sent(
            patch,
            lambda name: shop_settings(Path(directory), redis_url, f"{name}_{os.getpid()}", port),
            mailbox,
            int(people),
            deaths=DEATHS,
        )


if __name__ == "__main__":
    sys.exit(main())
