"""What is asked of a person to tell all segments at once, and what follows from the answers?

Twenty conditions over five events ask much of the same: how many of an event lie in this window and
in that one. So what they compare is asked once, as a question whose answer is a step: which of all
the constants that any condition compares it with are reached. Nobody's memberships depend on more
than their steps, and few rows of steps are met in practice, so what follows from one is worked out
once and kept, as a tree: each inner node is the next question that matters, each leaf the segments,
and which of the numbers behind the answers tell when time alone changes something.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from schemas.activity import times_by_name
from schemas.segment_facts import DAY_MS, NEVER, Facts, Look, Rule

MOST_QUESTIONS = 8
"""Segments that ask so few questions together are told by one tree. More would tell everybody
apart, and what follows would be worked out again and again."""
MOST_NODES = 5_000
"""A tree of more is forgotten, and grows anew."""

Step = Hashable
Asked = tuple[Step, Any]
"""The step, and the number behind it from which times are told: what `until` takes."""
Term = tuple["Question", int, int]
"""(of which question, k, ms): the k-th newest of its times and so many ms; of k = 0 its number."""
Verdict = tuple[bool, tuple[Term, ...]]
"""Whether it holds, and until when: the earliest of these."""
Decide = Callable[[Step], Verdict]


class Question:
    """Something to know of a person."""

    __slots__ = ("ask",)

    ask: Callable[[Look], Asked]


class Whether(Question):
    """A condition that shares nothing with others."""

    __slots__ = ()

    def __init__(self, rule: Rule) -> None:
        self.ask = rule

    def decide(self, step: Step) -> Verdict:
        return bool(step), ((self, 0, 0),)


class HowOften(Question):
    """How many of one event lie in each of some windows. The number behind it: their times."""

    __slots__ = ("_name", "_steps", "_windows")

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: dict[int, set[int]] = {}  # by window, ms: the counts that are told apart

    def within(self, length_ms: int, low: int, high: int) -> Decide:
        """Whether `low` to `high` of them lie in a window."""
        steps = self._steps.setdefault(length_ms, set())
        if low:
            steps.add(low)
        if high < NEVER:
            steps.add(high + 1)

        def decide(step: Any) -> Verdict:
            reached = sorted(steps)[: step[sorted(self._steps).index(length_ms)]]
            if low and low not in reached:
                return False, ()  # they only become fewer
            if high < NEVER and high + 1 in reached:
                return False, ((self, high + 1, length_ms),) if low <= high else ()
            return True, ((self, low, length_ms),) if low else ()

        return decide

    def ready(self, wanted: Mapping[bytes, str]) -> None:
        """To be called once everything that is asked is known; `wanted`: of all such questions."""
        name = self._name
        windows = [(length, sorted(steps)) for length, steps in sorted(self._steps.items())]
        shortest_ms = windows[0][0]
        nothing = (0,) * len(windows), ()
        inside: dict[int, Step] = {}  # of so many that lie in every window

        def ask(look: Look) -> Asked:
            by_name = look.times
            if by_name is None:
                by_name = look.times = times_by_name(look.facts.packed_activity, wanted)
            times = by_name.get(name)
            if times is None:
                return nothing
            now_ms, count = look.now_ms, len(times)
            if times[0] > now_ms - shortest_ms:
                known = inside.get(count)
                if known is None:
                    known = tuple(bisect_right(steps, count) for _, steps in windows)
                    inside[count] = known
                return known, times
            step = tuple(
                [
                    bisect_right(steps, count - bisect_right(times, now_ms - length))
                    for length, steps in windows
                ]
            )
            return step, times

        self.ask = ask


class HowMuch(Question):
    """A number, against constants; of a time, how many days ago it was. The number behind it: that
    time."""

    __slots__ = ("_constants", "_in_days", "_of")

    def __init__(self, of: Callable[[Facts], int | None], *, in_days: bool) -> None:
        self._of = of
        self._in_days = in_days
        self._constants: set[int] = set()

    def between(self, low: int, high: int) -> Decide:
        """Whether it is known, and `low` to `high`."""
        constants, in_days = self._constants, self._in_days
        constants.add(low)
        if high < NEVER:
            constants.add(high + 1)

        def decide(step: Any) -> Verdict:
            reached = sorted(constants)[: max(0, step)]
            if step < 0 or (high < NEVER and high + 1 in reached):
                return False, ()
            if low not in reached:
                return False, ((self, 0, low * DAY_MS),) if in_days and low <= high else ()
            return True, ((self, 0, (high + 1) * DAY_MS),) if in_days and high < NEVER else ()

        return decide

    def ready(self) -> None:
        """As of HowOften."""
        of, constants = self._of, sorted(self._constants)

        def amount(look: Look) -> Asked:
            found = of(look.facts)
            return (-1, 0) if found is None else (bisect_right(constants, found), found)

        def age(look: Look) -> Asked:
            at_ms = of(look.facts)
            if at_ms is None:
                return -1, 0
            days = (look.now_ms - at_ms) // DAY_MS
            return bisect_right(constants, days if days > 0 else 0), at_ms

        self.ask = age if self._in_days else amount


Tree = Callable[[Mapping[Question, Step]], Verdict | Question]
"""A condition: what it says by these answers, or which one it needs besides."""


def leaf(question: Question, decide: Decide) -> Tree:
    """One comparison."""
    verdicts: dict[Step, Verdict] = {}

    def decided(known: Mapping[Question, Step]) -> Verdict | Question:
        if question not in known:
            return question
        step = known[question]
        verdict = verdicts.get(step)
        if verdict is None:
            if len(verdicts) >= MOST_NODES:
                verdicts.clear()
            verdict = verdicts[step] = decide(step)
        return verdict

    return decided


def branch(trees: Sequence[Tree], *, decides: bool) -> Tree:
    """`all` (False decides) or `any` (True does) of these, asked in this order as far as needed:
    while one that decides holds, the others do not matter."""

    def decided(known: Mapping[Question, Step]) -> Verdict | Question:
        ends: tuple[Term, ...] = ()
        for tree in trees:
            found = tree(known)
            if isinstance(found, Question) or found[0] is decides:
                return found
            ends += found[1]
        return not decides, ends

    return decided


def negated(tree: Tree) -> Tree:
    """What does not hold, and as long."""

    def decided(known: Mapping[Question, Step]) -> Verdict | Question:
        found = tree(known)
        return found if isinstance(found, Question) else (not found[0], found[1])

    return decided


NOBODY: frozenset[str] = frozenset()


class _Node:
    """What follows from some answers: who asks next, or the segments and until when."""

    __slots__ = ("ends", "known", "members", "next", "question")

    def __init__(self, known: dict[Question, Step]) -> None:
        self.known = known
        self.question: Question | None = None
        self.next: dict[Step, _Node] = {}
        self.members = NOBODY
        self.ends: tuple[Term, ...] = ()


class _Answers(dict[Question, Step]):
    """Every answer of one person, asked for when it is looked up."""

    __slots__ = ("look", "numbers")

    def __init__(self, look: Look) -> None:
        self.look = look
        self.numbers: dict[Question, Any] = {}

    def __contains__(self, question: object) -> bool:
        return True

    def __missing__(self, question: Question) -> Step:
        step, self.numbers[question] = question.ask(self.look)
        self[question] = step
        return step


class _Group:
    """Some segments, told by one tree; or by no tree where they ask too much for one."""

    __slots__ = ("_nodes", "_root", "_trees", "questions")

    def __init__(self, questions: frozenset[Question]) -> None:
        self.questions = questions
        self._trees: dict[str, Tree] = {}
        self._nodes = 0
        self._root: _Node | None = None

    def add(self, id_: str, tree: Tree, questions: frozenset[Question]) -> None:
        self._trees[id_] = tree
        self.questions |= questions

    def tell(self, answers: _Answers) -> _Node:
        """The node that has the segments, and when to look again."""
        if len(self.questions) > MOST_QUESTIONS:
            return self._node(answers)
        node = self._root
        if node is None or self._nodes >= MOST_NODES:
            self._nodes = 0
            node = self._root = self._node({})
        while (question := node.question) is not None:
            step = answers[question]
            following = node.next.get(step)
            if following is None:
                following = node.next[step] = self._node({**node.known, question: step})
            node = following
        return node

    def _node(self, known: dict[Question, Step]) -> _Node:
        node = _Node(known)
        self._nodes += 1
        members: list[str] = []
        ends: dict[tuple[Question, int], int] = {}
        for id_, tree in self._trees.items():
            found = tree(known)
            if isinstance(found, Question):
                node.question = found
                return node
            if found[0]:
                members.append(id_)
            for question, k, ms in found[1]:
                ends[question, k] = min(ms, ends.get((question, k), ms))
        node.members = frozenset(members) if members else NOBODY
        node.ends = tuple((*about, ms) for about, ms in ends.items())
        return node


class Diagram:
    """All segments of a set."""

    __slots__ = ("_groups",)

    def __init__(self, segments: Iterable[tuple[str, Tree, frozenset[Question]]]) -> None:
        self._groups: list[_Group] = []
        for id_, tree, questions in segments:
            for group in self._groups:
                if len(group.questions | questions) <= MOST_QUESTIONS:
                    break
            else:
                group = _Group(questions)
                self._groups.append(group)
            group.add(id_, tree, questions)

    def evaluate(self, look: Look) -> tuple[frozenset[str], int]:
        """The segments that `look` is in, and until when, NEVER included."""
        answers = _Answers(look)
        numbers = answers.numbers
        members, until_ms = NOBODY, NEVER
        for group in self._groups:
            node = group.tell(answers)
            for question, k, ms in node.ends:
                number = numbers[question]
                at_ms = number[-k] + ms if k else number + ms
                if at_ms < until_ms:
                    until_ms = at_ms
            members = members | node.members if members else node.members
        return members, until_ms
