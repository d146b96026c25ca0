"""What do a million people who wait for a message cost a lane, and how late does it come?

    python -m bench.timers [--people 1000000] [--window-s 30] [--burst 10000]

One lane on a broker of its own, filled with people who each left a cart behind. Their messages come
due evenly over an hour, of which the bench sees `--window-s`; then `--burst` more at one moment.
The delay is from when a message was due until the broker had answered its commit. Rows go to
bench/results.csv; memory is printed.
"""

import argparse
import asyncio
import gc
import os
import tempfile
import time
from pathlib import Path

from bench.results import percentiles, record
from runtime.clock import now_ms
from runtime.embedded import EmbeddedStack, Wanted
from runtime.settings import Journey, Kafka, Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import HEADER_BYTES, JOURNEY_DUE
from schemas.events import Collected
from streams.app import arrows, lane_settings
from streams.lane import Lane
from streams.rules.admit import admit
from streams.rules.outcomes import Admitted
from streams.rules.person import Person
from streams.rules.wakes import Wakes

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
_CLEAR = b'{"properties":{"product_id":"p%d","name":"Tea no. %d","price":"4.50","currency":"EUR"}}'


def main() -> None:
    """Fill a lane, let its timers fire, write the row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--window-s", type=int, default=30)
    parser.add_argument("--burst", type=int, default=10_000)
    parser.add_argument("--no-record", action="store_true", help="write no row to results.csv")
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder,
        EmbeddedStack(Path(folder) / "servers", Wanted(), say=print) as stack,
    ):
        settings = Settings(
            data_dir=str(Path(folder) / "data"),
            kafka=Kafka(
                bootstrap_servers=stack.addresses.bootstrap_servers,
                partitions=1,
                is_trial=stack.broker_kind == "trial",
            ),
            journeys=(Journey(id="cart", topic="cart"),),
        )
        ensure_topics(settings)
        steady, burst = asyncio.run(_fire(settings, chosen.people, chosen.window_s, chosen.burst))
        broker = stack.broker_kind
    print(f"steady: {len(steady)} messages, p50, p99, max: {', '.join(percentiles(steady))} ms")
    print(f"burst:  {len(burst)} messages, p50, p99, max: {', '.join(percentiles(burst))} ms")
    if not chosen.no_record:
        waiting = f"{chosen.people} waiting, {broker}"
        record(f"firing delay, {len(steady) // chosen.window_s} a second due, {waiting}",
               latencies_ms=steady)  # fmt: skip
        record(f"firing delay, {len(burst)} due at once, {waiting}", latencies_ms=burst)


async def _fire(
    settings: Settings, people: int, window_s: int, burst: int
) -> tuple[list[float], list[float]]:
    lane = Lane(0, lane_settings(settings, now_ms), arrows(settings.topic_names))
    lane.open()
    for topic in settings.topic_names.inputs:
        lane.start_at(topic, 0, 0)
    before = _resident()
    begin_ms = now_ms() + people // 8 + 10_000  # filling takes up to 125 µs each
    burst_ms = begin_ms + (window_s + 5) * 1_000
    for number in range(people + burst):
        at_ms = begin_ms + number * HOUR_MS // people if number < people else burst_ms
        person = _left_a_cart(lane, number, at_ms - HOUR_MS)
        lane.people[person.pid] = person
    gc.collect()
    gc.freeze()
    filled = _resident()
    lane.wakes = Wakes(lane.people.values())
    count, waiting = people + burst, _resident()
    print(f"{(filled - before) / count:,.0f} bytes a person with a cart, and "
          f"{(waiting - filled) / count:,.0f} bytes to wake them")  # fmt: skip
    seen = _Seen(lane)
    if now_ms() > begin_ms:
        raise SystemExit("filling took too long: fewer --people")
    work = asyncio.create_task(lane.run())
    await asyncio.sleep((burst_ms + 15_000 - now_ms()) / 1000)
    await lane.close()
    await work
    steady = [
        at_ms - due_ms for due_ms, at_ms in seen.fired if due_ms < begin_ms + window_s * 1_000
    ]
    return steady, [at_ms - due_ms for due_ms, at_ms in seen.fired if due_ms == burst_ms]


class _Seen:
    """What a lane said was due, and when the commit of it had been answered."""

    def __init__(self, lane: Lane) -> None:
        self.fired: list[tuple[int, float]] = []
        self._open: list[int] = []
        self._send, self._commit = lane.producer.send, lane.producer.commit
        self._topic = lane.settings.topics.journeys
        lane.producer.send = self.send  # type: ignore[method-assign]
        lane.producer.commit = self.commit  # type: ignore[method-assign]

    def send(self, topic: str, value: bytes | None, key: bytes | None, partition: int) -> None:
        """As the producer's, remembering messages."""
        self._send(topic, value, key, partition)
        if topic == self._topic and value is not None:
            assert value[:HEADER_BYTES] == JOURNEY_DUE.header
            self._open.append(JOURNEY_DUE.decode(value).due_at_ms)

    def commit(self) -> float:
        """As the producer's; what was said is visible now."""
        took_s = self._commit()
        at_ms = time.time() * 1000
        self.fired += [(due_ms, at_ms) for due_ms in self._open]
        self._open.clear()
        return took_s


def _left_a_cart(lane: Lane, number: int, at_ms: int) -> Person:
    """Somebody whose cart was changed last then."""
    person = Person(number.to_bytes(16, "big"))
    event = Collected(
        number.to_bytes(16, "big"), person.pid, "shop", "track", "Product Added", at_ms, None,
        at_ms, 0, 0, _CLEAR % (number % 5_000, number % 5_000), [], 1, b"",
    )  # fmt: skip
    outcome = admit(event, person, _Forgetful(), lane.settings.rules)
    assert isinstance(outcome, Admitted)
    person.wake_at_ms = at_ms + HOUR_MS
    person.activity_since_ms = at_ms
    return person


class _Forgetful:
    """Recognises nothing: the bench sends everything once."""

    def recognise(self, _event: Collected) -> None:
        """Everything is new."""
        return


def _resident() -> int:
    """Bytes of memory that this process has in use."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
