"""What is asked of a person to tell all segments at once?

Twenty conditions over five events ask much of the same: how many of an event lie in this window and
in that one. So what they compare is asked once, and the answer says of each comparison where the
person stands: below what it allows, within, or above. That takes two bits, and nobody's
memberships depend on more than these bits (schemas/segment_tables.py).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from schemas.activity import times_by_name
from schemas.segment_facts import DAY_MS, NEVER, Facts, Look, Rule
from schemas.varints import write_text

BELOW: Final = 1
WITHIN: Final = 2
ABOVE: Final = 3
BITS_EACH: Final = 2
BOTH_BITS: Final = 3
"""Of a comparison; they are 0 where it was not asked yet."""

Term = tuple[str, int, int]
"""(about what, k, ms): the k-th newest of its times and so many ms; of k = 0 its number."""
Verdict = tuple[bool, tuple[Term, ...]]
"""Whether it holds, and until when: the earliest of these."""
_NEVER_HOLDS: Verdict = (False, ())


class Question:
    """Something to know of a person. `ask` gives the bits of every comparison of it, and leaves in
    the look the numbers behind them, from which times are told."""

    __slots__ = ("ask",)

    ask: Callable[[Look], int]


class Comparison(NamedTuple):
    """Of one condition: whom to ask, about what, where its bits stand, and what follows."""

    question: Question
    about: str
    place: int
    below: Verdict
    within: Verdict
    above: Verdict = _NEVER_HOLDS


class Range(NamedTuple):
    """What a comparison allows, inclusive."""

    low: int
    high: int
    place: int

    def bits_of(self, number: int) -> int:
        """Where `number` stands."""
        state = ABOVE if number > self.high else BELOW if number < self.low else WITHIN
        return state << self.place


class Whether(Question):
    """A condition that shares nothing with others. The number behind it: until when."""

    __slots__ = ()

    def compare(self, about: str, rule: Rule, place: int) -> Comparison:
        """It holds, or it does not."""
        answers = BELOW << place, WITHIN << place

        def ask(look: Look) -> int:
            holds, look.numbers[about] = rule(look)
            return answers[holds]

        self.ask = ask
        ends = ((about, 0, 0),)
        return Comparison(self, about, place, (False, ends), (True, ends))


class HowMuch(Question):
    """A number, against constants; of a time, how many days ago it was. The number behind it: that
    time."""

    __slots__ = ("_about", "_in_days", "_of", "_ranges")

    def __init__(self, about: str, of: Callable[[Facts], int | None], *, in_days: bool) -> None:
        self._about = about
        self._of = of
        self._in_days = in_days
        self._ranges: list[Range] = []

    def compare(self, low: int, high: int, place: int) -> Comparison:
        """Whether it is known, and `low` to `high`."""
        self._ranges.append(Range(low, high, place))
        about, below, within = self._about, _NEVER_HOLDS, (True, ())
        if not self._in_days:
            return Comparison(self, about, place, below, within)
        if low <= high:
            below = False, ((about, 0, low * DAY_MS),)
        ends = ((about, 0, (high + 1) * DAY_MS),) if high < NEVER else ()
        return Comparison(self, about, place, below, (True, ends))

    def ready(self) -> None:
        """To be called once all comparisons are known."""
        about, of = self._about, self._of
        constants, bits = _bits_by_step(self._ranges)
        unknown = sum(ABOVE << each.place for each in self._ranges)

        def amount(look: Look) -> int:
            found = of(look.facts)
            return unknown if found is None else bits[bisect_right(constants, found)]

        def age(look: Look) -> int:
            at_ms = of(look.facts)
            if at_ms is None:
                return unknown
            look.numbers[about] = at_ms
            days = (look.now_ms - at_ms) // DAY_MS
            return bits[bisect_right(constants, days if days > 0 else 0)]

        self.ask = age if self._in_days else amount


class HowOften(Question):
    """How many of each event lie in each of some windows. The numbers behind it: their times."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: dict[str, dict[int, list[Range]]] = {}  # by event and by window, ms

    def compare(self, name: str, length_ms: int, low: int, high: int, place: int) -> Comparison:
        """Whether `low` to `high` of an event lie in a window."""
        ranges = self._ranges.setdefault(name, {}).setdefault(length_ms, [])
        ranges.append(Range(low, high, place))
        above = _NEVER_HOLDS
        if low <= high < NEVER:
            above = False, ((name, high + 1, length_ms),)
        ends = ((name, low, length_ms),) if low else ()
        # Who is below stays there: they only become fewer.
        return Comparison(self, name, place, _NEVER_HOLDS, (True, ends), above)

    def ready(self) -> None:
        """As of HowMuch."""
        wanted = {write_text(name): name for name in self._ranges}
        asked = [(name, _Windows(by_length)) for name, by_length in self._ranges.items()]

        def ask(look: Look) -> int:
            times_of = look.times = times_by_name(look.facts.packed_activity, wanted)
            now_ms, bits = look.now_ms, 0
            for name, windows in asked:
                times = times_of.get(name)
                if times is None:
                    bits |= windows.nothing
                elif times[0] > now_ms - windows.shortest_ms:
                    bits |= windows.inside[len(times)]
                else:
                    count = len(times)
                    for length_ms, constants, steps in windows.steps:
                        inside = count - bisect_right(times, now_ms - length_ms)
                        bits |= steps[bisect_right(constants, inside)]
            return bits

        self.ask = ask


class _Windows:
    """Of one event, what its times say."""

    __slots__ = ("inside", "nothing", "shortest_ms", "steps")

    def __init__(self, by_length: dict[int, list[Range]]) -> None:
        self.shortest_ms = min(by_length)
        self.steps = [(length, *_bits_by_step(ranges)) for length, ranges in by_length.items()]
        self.inside = _Inside(self.steps)
        self.nothing = self.inside[0]


class _Inside(dict[int, int]):
    """What is known when so many lie in every window, worked out when first asked for."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Sequence[tuple[int, list[int], list[int]]]) -> None:
        self._steps = steps

    def __missing__(self, count: int) -> int:
        found = sum(bits[bisect_right(constants, count)] for _, constants, bits in self._steps)
        self[count] = found
        return found


def _bits_by_step(ranges: Sequence[Range]) -> tuple[list[int], list[int]]:
    """(the numbers at which something changes, in order; what is known of one that has reached
    none of them, the first, the second and so on)."""
    constants = sorted({edge for each in ranges for edge in (each.low, each.high + 1)})
    reached = [constants[0] - 1, *constants]
    return constants, [sum(each.bits_of(number) for each in ranges) for number in reached]
