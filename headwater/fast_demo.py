"""Four days of carts left behind, in a minute or two: is everybody written to who should be?

The whole system runs as it always does, but the moment that it takes for now is one that the demo
puts forward: to the next thing that a customer does, or that the system has waited for, and only
once nothing is left to do at the moment before (ADR 0028). So nothing is late because a machine is
slow, and what was sent must equal what the shop's own ledger expects, to the half hour on which
all of the story lies.
"""

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

from headwater.caller import Caller
from headwater.demo import Outcome, StoppedEarly, page_of, stage
from headwater.fast_verdict import MESSAGES, judge, milliseconds
from headwater.fast_words import line_of, summary_of
from headwater.screen import campaign_table
from headwater.standstill import Standstill
from headwater.up import House
from headwater.verify import verify
from producers.posting import Poster
from producers.rules.cart_days import (
    TOPIC,
    Deed,
    Story,
    agreements_of,
    call_of,
    monday_before,
    refusal_of,
    sign_up_of,
    tell_story,
)
from producers.rules.cart_ledger import (
    ACTIVE,
    DAY_HOURS,
    EAGER,
    EAGER_ADDS,
    MOST_A_DAY,
    MOST_A_WEEK,
    MOST_MESSAGES,
    PLANS,
)
from runtime.clock import SharedClock, follow, real_ms
from runtime.settings import Journey, Settings
from runtime.settings_sending import Sending
from schemas.errors import StoreUnavailable, StreamError
from schemas.topics import DAY_MS

DEEDS = 60
"""Of customers, without --events."""
PATIENCE_S = 5.0
NUDGE_MS = 15_000
"""What waits for the clock to try something again gets so much of it after PATIENCE_S."""
REST_WITHIN_S = 90.0
_AT_ONCE = 100
_SHOWN_DIFFERENCES = 20
_GIVES_UP_AFTER_S = 120.0


def run_fast_demo(settings: Settings, *, events: int | None, seed: int) -> bool:
    """Run the four days; True when what was sent and who belonged where equal the shop's ledger,
    and the counters the facts counted again.

    With `events` (deeds of customers, at least) it ends then; without, it stays until somebody asks
    to stop, so that the pages can be looked at.
    """
    clocks: list[SharedClock] = []
    begins = monday_before(real_ms())

    def prepare(house: Settings) -> Settings:
        file = Path(house.data_dir) / "clock"
        clocks.append(SharedClock(file, int(begins.timestamp()) * 1000))
        follow(str(file))  # what the demo itself writes, such as segments, is of this time too
        return with_days(house, file)

    try:
        return stage(
            settings,
            events,
            lambda house, console: _Days(house, console, clocks[0], seed, begins),
            prepare,
        )
    finally:
        follow("")


def with_days(settings: Settings, clock_file: Path) -> Settings:
    """Settings of a house with the journeys, segments and limits of the shop's plans."""
    journeys = tuple(
        Journey(
            id=plan.id,
            topic=TOPIC,
            wait_minutes=60 * plan.wait_hours,
            follow_ups_hours=(plan.follow_up_hours,),
            most_messages=MOST_MESSAGES,
            in_segment=plan.only,
        )
        for plan in PLANS
    )
    added = {"event": "Product Added"}
    segments = (
        {
            "id": ACTIVE,
            "name": "Put something into their cart in the last 24 hours",
            "condition": added | {"within_hours": DAY_HOURS},
        },
        {
            "id": EAGER,
            "name": "Did so twice this week",
            "condition": added | {"within_days": 7, "at_least": EAGER_ADDS},
        },
    )
    return settings.model_copy(
        update={
            "journeys": journeys,
            "segments": segments,
            "sending": Sending(most_a_day=MOST_A_DAY, most_a_week=MOST_A_WEEK),
            "time": settings.time.model_copy(update={"clock_file": str(clock_file)}),
        }
    )


class _Days:
    """The four days, in a thread of their own."""

    def __init__(
        self, house: House, console: Console, clock: SharedClock, seed: int, begins: datetime
    ) -> None:
        self._house = house
        self._console = console
        self._clock = clock
        self._seed = seed
        self._begins = begins
        self._stop = threading.Event()
        keys = house.settings.http.keys
        self._caller = Caller(house.url, keys, self._stop.wait)
        self._poster = Poster(house.url, keys["write"], gives_up_after_s=_GIVES_UP_AFTER_S)
        self._moments = 0

    def ask_to_stop(self) -> None:
        """It ends soon; from any thread."""
        self._stop.set()
        self._poster.stop()

    def run(self, events: int | None) -> Outcome:
        """Live the days, compare, and without `events` stay. Raises StoppedEarly, StreamError."""
        story = tell_story(self._seed, events or DEEDS, self._begins)
        standstill = Standstill(self._house.settings)
        try:
            began_s = time.monotonic()
            self._introduce(story, standstill)
            self._live(story, standstill)
            took_s = time.monotonic() - began_s
            outcome = self._compare(story, standstill, took_s)
            if events is None:
                self._say("The clock stands still from now on; Ctrl-C ends the demo.")
                self._stop.wait()
        except StreamError as error:
            if self._stop.is_set():
                raise StoppedEarly from error
            raise
        finally:
            standstill.close()
            self._caller.close()
            self._poster.close()
        return outcome

    # -- the days

    def _introduce(self, story: Story, standstill: Standstill) -> None:
        customers, at_ms = story.customers, story.begins_at_ms
        self._say(
            f"{len(customers)} customers of a shop live through four days, from Monday "
            f"{self._begins:%d %B %Y} on, with {len(story.deeds)} deeds."
        )
        self._say(
            "The clock of the whole system stands still while anything is left to do, then goes to "
            "the next moment at which something happens: nothing is late because this machine is "
            "slow. Only deadlines between processes count real seconds. Times are UTC."
        )
        self._say(f"Outbox: {self._outbox()}  (the mails of the last day)")
        self._post(sign_up_of(customer, at_ms) for customer in customers)
        rows = [row for customer in customers for row in agreements_of(customer, at_ms)]
        for at in range(0, len(rows), _AT_ONCE):
            body = {"consents": rows[at : at + _AT_ONCE]}
            self._caller.post("/v1/consents/lists", "consent_desk", body)
        self._rest(standstill, story.ends_at_ms)

    def _live(self, story: Story, standstill: Standstill) -> None:
        deeds = {
            at_ms: list(same)
            for at_ms, same in itertools.groupby(story.deeds, lambda deed: deed.heard_at_ms)
        }
        seen_ms, moves = self._clock(), standstill.moves.copy()
        while True:
            coming = [at_ms for at_ms in deeds if at_ms > seen_ms]
            woken_ms = standstill.next_ms()
            if woken_ms is not None:
                coming.append(max(woken_ms, self._clock()))
            now_ms = min(coming, default=story.ends_at_ms + 1)
            if now_ms > story.ends_at_ms:
                return
            seen_ms = now_ms
            self._clock.put_to(now_ms)
            self._moments += 1
            self._do(deeds.get(now_ms, ()))
            later = [at_ms for at_ms in deeds if at_ms > now_ms]
            self._rest(standstill, min(later, default=story.ends_at_ms))
            moved = standstill.moves - moves
            moves = standstill.moves.copy()
            line = line_of(now_ms, deeds.get(now_ms, ()), self._decided(now_ms), moved)
            if line:
                self._say(line)

    def _do(self, deeds: Sequence[Deed]) -> None:
        self._post(call_of(deed) for deed in deeds if deed.kind in ("add", "remove", "order"))
        for deed in deeds:
            if deed.kind in ("refuse", "unsubscribe"):
                self._caller.post("/v1/consents", "consent_desk", refusal_of(deed))

    def _post(self, calls: Iterable[dict[str, Any]]) -> None:
        waiting = list(calls)
        for at in range(0, len(waiting), _AT_ONCE):
            self._poster.post(orjson.dumps({"batch": waiting[at : at + _AT_ONCE]}))

    def _rest(self, standstill: Standstill, before_ms: int) -> None:
        """Nothing is left to do at this moment. Raises StoppedEarly, StoreUnavailable."""
        until_s = time.monotonic() + REST_WITHIN_S
        while not standstill.wait(self._clock(), PATIENCE_S, self._stop.is_set):
            if self._stop.is_set():
                raise StoppedEarly
            if time.monotonic() > until_s:
                raise StoreUnavailable(
                    f"something is left to do after {REST_WITHIN_S:.0f} s at one moment of the "
                    f"demo's clock; see the logs in {self._house.data_dir / 'logs'}"
                )
            # What met trouble is tried again some seconds later, of the clock.
            self._clock.put_to(max(self._clock(), min(self._clock() + NUDGE_MS, before_ms - 1)))

    def _decided(self, now_ms: int) -> Iterator[tuple[str, str, int | None]]:
        """(state, rule, held until) of what was decided over messages at this moment or, where it
        had to be tried again, soon after."""
        answer: Any = self._caller.get(MESSAGES, "operator")
        for message in answer["messages"]:
            for each in message["decisions"]:
                is_new = now_ms <= milliseconds(each["at"]) <= self._clock()
                if is_new and each["state"] in ("sent", "held", "dropped", "failed"):
                    until = each["until"]
                    yield each["state"], each["rule"] or "", milliseconds(until) if until else None

    # -- the verdict

    def _compare(self, story: Story, standstill: Standstill, took_s: float) -> Outcome:
        judged = judge(self._caller, story, standstill.moves, self._stop.wait)
        days = (self._clock() - story.begins_at_ms) / DAY_MS
        self._say(
            f"{days:.1f} days passed in {took_s:.0f} s; the clock stood still at {self._moments} "
            "moments."
        )
        for line in summary_of(judged.found):
            self._say(line)
        self._console.print(campaign_table(judged.campaigns, self._console.width))
        verdict = verify(self._house.settings)
        for line in judged.wrong[:_SHOWN_DIFFERENCES]:
            self._say(f"  {line}")
        if judged.wrong:
            self._console.print(
                f"[red]{len(judged.wrong)} differences from the shop's ledger[/red]"
            )
        else:
            self._console.print(
                f"{len(judged.found)} messages, and who was in which segment when: "
                "[green]equals the shop's ledger[/green]"
            )
        for line in verdict.lines():
            self._say(line)
        self._say(f"Page:   {page_of(self._house)}")
        self._say(f"Outbox: {self._outbox()}  (the last day's mails)")
        return Outcome(not judged.wrong, verdict.is_verified)

    def _outbox(self) -> str:
        return f"{self._house.url}/outbox#key={self._house.settings.http.keys['operator']}"

    def _say(self, line: str) -> None:
        self._console.print(escape(line))
