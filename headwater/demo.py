"""Does the whole of it count what a shop knows that it did?

A synthetic shop sends its traffic through HTTP like anybody else and keeps a ledger of its own.
At the end every counter of every campaign must equal that ledger, and must equal what counting the
facts again gives. The demo runs in a fresh directory with its own servers and the default settings,
so that nothing but its own traffic is in the numbers.
"""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.markup import escape

from headwater.caller import Caller
from headwater.screen import campaign_table, open_console, show_calls
from headwater.supervision import StopRequest, asked_to_stop
from headwater.up import House, remove_data, why_not_free
from headwater.verify import verify
from producers.posting import Poster
from producers.shop import Ledger, Pace, ShopCall, send_shop, shop_calls
from runtime.clock import now_ms
from runtime.settings import Journey, Kafka, Settings
from schemas.errors import StreamError

OPENING_CALLS = 5_000
"""Sent at once without --events, so that the page has something to show."""
RATE_PER_S = 50.0
SETTLES_WITHIN_S = 180.0
STILL_FOR_S = 15.0
"""Counters that did not move for so long will not reach the ledger any more."""
_POLL_S = 0.25
_JOURNEY = Journey(id="cart", topic="cart-reminders")
"""Some of the shop's customers left a cart behind an hour ago."""
_GIVES_UP_AFTER_S = 120.0
_SHOWN_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo found: both must hold."""

    equals_ledger: bool
    live_is_verified: bool


def run_demo(
    settings: Settings, *, events: int | None, rate_per_s: float | None, seed: int
) -> bool:
    """Run it all; True when the counters equal the shop's ledger and the facts counted again.

    With `events` it ends by itself, without it goes on until somebody asks to stop. What it made
    is removed afterwards, unless something went wrong.
    """

    def play_of(house: House, console: Console) -> Play:
        return _Shop(house, console, seed=seed, rate_per_s=rate_per_s)

    return stage(settings, events, play_of)


class Play(Protocol):
    """What a demo shows once everything runs."""

    def ask_to_stop(self) -> None:
        """It ends soon; from any thread."""

    def run(self, events: int | None) -> "Outcome":
        """All of it. Raises StoppedEarly, StreamError."""


def stage(
    chosen: Settings,
    events: int | None,
    play_of: Callable[[House, Console], Play],
    prepare: Callable[[Settings], Settings] = lambda settings: settings,
) -> bool:
    """Run a play in a house of its own, which is gone afterwards unless something went wrong.

    `prepare` may change the settings of the house. True when both verdicts of the play are yes.
    """
    console = open_console()

    def say(line: str) -> None:
        console.print(escape(line))

    parent = Path(chosen.data_dir)
    parent.mkdir(parents=True, exist_ok=True)
    data_dir = Path(tempfile.mkdtemp(prefix="demo-", dir=parent)).absolute()
    is_well = False
    try:
        with asked_to_stop(say) as asked:
            house = House(prepare(_settings_of_demo(chosen, data_dir, say)), say)
            say("Starting the servers and roles ...")
            house.start()
            asked.begin_waiting()
            try:
                say(f"Page:   {page_of(house)}")
                say(f"Logs:   {data_dir / 'logs'}")
                play = play_of(house, console)
                outcome = _tend_while(house, asked, play, lambda: play.run(events))
                is_well = outcome.equals_ledger and outcome.live_is_verified
            except StoppedEarly:
                say("Stopped before the numbers were compared.")
                return False
            finally:
                say("Stopping ...")
                house.stop()
    except KeyboardInterrupt:
        say("Stopped before it was ready.")
        return False
    finally:
        if is_well:
            remove_data(data_dir)
        else:
            say(f"Data and logs are kept in {data_dir}")
    return is_well


class StoppedEarly(Exception):
    """Somebody asked to stop before there was an outcome."""


class _Shop:
    """The shop at work, in a thread of its own."""

    def __init__(
        self, house: House, console: Console, *, seed: int, rate_per_s: float | None
    ) -> None:
        self._stop = threading.Event()
        self._house = house
        self._console = console
        self._seed = seed
        self._rate_per_s = rate_per_s
        self._ledger = Ledger()
        keys = house.settings.http.keys
        self._caller = Caller(house.url, keys, self._stop.wait)
        self._poster = Poster(house.url, keys["write"], gives_up_after_s=_GIVES_UP_AFTER_S)

    def ask_to_stop(self) -> None:
        """It ends soon, also when it waits for an answer; from any thread."""
        self._stop.set()
        self._poster.stop()

    def run(self, events: int | None) -> Outcome:
        """Send, compare, and without `events` go on sending. Raises StoppedEarly, StreamError."""
        try:
            if events is not None:
                calls = shop_calls(self._seed, events, now_ms())
                self._send(calls, events)
                return self._compare()
            calls = shop_calls(self._seed, None, now_ms(), now_ms)
            self._send(itertools.islice(calls, OPENING_CALLS), OPENING_CALLS)
            outcome = self._compare()
            self._go_on(calls)
        except StreamError as error:
            if self._stop.is_set():
                raise StoppedEarly from error
            raise
        finally:
            self._caller.close()
            self._poster.close()
        return outcome

    def _send(self, calls: Iterator[ShopCall], total: int) -> None:
        pace = self._pace(self._rate_per_s) if self._rate_per_s else None
        began_s = time.monotonic()
        with show_calls(self._console, total) as on_progress:
            sent = send_shop(
                calls,
                self._poster.post,
                self._ledger,
                pace=pace,
                on_progress=on_progress,
                should_stop=self._stop.is_set,
            )
        if self._stop.is_set():
            raise StoppedEarly
        took_s = time.monotonic() - began_s
        self._console.print(
            f"Sent {sent:,} calls in {took_s:.1f} s ({sent / took_s:,.0f} a second): "
            f"{self._ledger.duplicates:,} were sent twice, {self._ledger.rejected_total:,} broken."
        )

    def _go_on(self, calls: Iterator[ShopCall]) -> None:
        rate_per_s = self._rate_per_s or RATE_PER_S
        self._console.print(
            f"Sending {rate_per_s:g} calls a second from now on; Ctrl-C ends the demo."
        )
        pace = self._pace(rate_per_s)
        send_shop(
            calls,
            self._poster.post,
            self._ledger,
            pace=pace,
            should_stop=self._stop.is_set,
        )

    def _compare(self) -> Outcome:
        answer, differences = self._settle()
        self._console.print(campaign_table(answer, self._console.width))
        # Counting again takes a while: whatever would still have changed has changed after it.
        verdict = verify(self._house.settings)
        if not differences:
            differences = self._ledger.differences(self._campaigns())
        if differences:
            for line in differences[:_SHOWN_DIFFERENCES]:
                self._console.print(f"  {escape(line)}")
            self._console.print(
                f"[red]{len(differences)} numbers differ from the shop's ledger[/red]"
            )
        else:
            numbers = len(self._ledger.expected())
            self._console.print(f"{numbers} campaigns: [green]equals the shop's ledger[/green]")
        for line in verdict.lines():
            self._console.print(escape(line))
        self._console.print(f"Page: {escape(page_of(self._house))}")
        return Outcome(not differences, verdict.is_verified)

    def _settle(self) -> tuple[dict[str, object], list[str]]:
        """Wait until the counters equal the ledger, or have come to rest elsewhere."""
        now_s = time.monotonic()
        until_s, moved_at_s = now_s + SETTLES_WITHIN_S, now_s
        answer = self._campaigns()
        while differences := self._ledger.differences(answer):
            if self._stop.wait(_POLL_S):
                raise StoppedEarly
            before, answer = answer, self._campaigns()
            now_s = time.monotonic()
            if answer["campaigns"] != before["campaigns"]:
                moved_at_s = now_s
            if now_s > until_s or now_s - moved_at_s > STILL_FOR_S:
                break
        return answer, differences

    def _campaigns(self) -> dict[str, object]:
        return self._caller.get("/v1/campaigns", "viewer")

    def _pace(self, rate_per_s: float) -> Pace:
        return Pace(rate_per_s, time.monotonic, self._stop.wait)


def _tend_while(
    house: House, asked: StopRequest, play: Play, work: Callable[[], Outcome]
) -> Outcome:
    """The answer of `work`, done in a thread while this one keeps the house."""
    with ThreadPoolExecutor(1, thread_name_prefix="shop") as pool:
        future: Future[Outcome] = pool.submit(work)
        try:
            while not future.done():
                if asked.is_asked:
                    play.ask_to_stop()
                house.tend()
                time.sleep(0.1)
        finally:
            play.ask_to_stop()
        return future.result()


def _settings_of_demo(chosen: Settings, data_dir: Path, say: Callable[[str], None]) -> Settings:
    """Defaults and a journey, with the embedded servers of a fresh directory, whatever else is
    configured."""
    http = chosen.http.model_copy(update={"keys": {}})
    if http.port and why_not_free(http.host, http.port):
        say(f"Port {http.port} is taken: using a free one.")
        http = http.model_copy(update={"port": 0})
    kafka = Kafka(embedded=chosen.kafka.embedded)
    return Settings(data_dir=str(data_dir), kafka=kafka, http=http, journeys=(_JOURNEY,))


def page_of(house: House) -> str:
    return f"{house.url}/#key={house.settings.http.keys['viewer']}"
