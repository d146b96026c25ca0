"""What must Headwater show, by a file of history alone?

Shares no code with the product.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from tests.faults.who_is_who import Said, owners, root_of

METRICS = {
    "Email Sent": "sent",
    "Email Opened": "opened",
    "Product Viewed": "product_views",
    "Product Added": "cart_adds",
    "Order Completed": "orders",
    "page": "page_views",
    "identify": "",
    "alias": "",
    "Product Removed": "",
}
"""What a call adds one to."""


MOST_UNSURE = 4
"""Of so many words that were never answered each is taken for said and for not said."""


@dataclass
class Truth:
    """A history, read."""

    run: str
    explained_from: dict[int, int] = field(default_factory=dict)
    """Partition of events.rejected -> its end before the run."""
    explained_to: dict[int, int] = field(default_factory=dict)
    """Its end after the run; empty while the run goes on. What comes later is of other runs."""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Acknowledged calls by id."""
    unknown: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Calls that were never answered: each may count once, or not at all."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """messageId of a broken call -> requests it was sent in."""
    poison: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """Place on the log -> what lies there."""

    by_hand: list[dict[str, Any]] = field(default_factory=list)
    """Decisions on who is who, in their order; `outcome` may be unknown."""
    definitions: list[dict[str, Any]] | None = None
    """Segments as the run applied them last; None if it did not."""
    pids: dict[str, str] = field(default_factory=dict)
    """Name of an identifier -> pid in hex. Empty while the run goes on, and in one where everybody
    has one identifier."""
    owner_of: dict[str, str] = field(default_factory=dict)
    """Who belongs to whom, if what is unsure was not said."""

    @property
    def people(self) -> set[str]:
        """Names of everybody who called, and of everybody who was named."""
        calls = (*self.calls.values(), *self.unknown.values())
        named = (call.get("one_person", ()) for call in (*calls, *self.by_hand))
        return {call["person"] for call in calls} | set(chain.from_iterable(named))

    def root_of(self, person: str) -> str:
        """Who stands for the person."""
        return root_of(person, self.owner_of)

    def find_owners(self, unsure: Iterable[dict[str, Any]] = ()) -> "Truth":
        """The same, with who belongs to whom, if of what is unsure this was said."""
        if not self.pids:
            return self
        said = [
            Said(tuple(each["one_person"]), each["number"], each["how"])
            for each in (*self.by_hand, *unsure)
            if "how" in each and (each["outcome"] == "acknowledged" or each in unsure)
        ]
        said += [
            Said(tuple(each["one_person"]), each["occurred_at_ms"], "call")
            for each in (*self.calls.values(), *unsure)
            if "one_person" in each and "how" not in each
        ]
        return replace(self, owner_of=owners(said, self.pids))

    def possible(self) -> list["Truth"]:
        """What may be true, by what is unsure of who is who; the likeliest first."""
        unsure = [each for each in self.unknown.values() if "one_person" in each]
        unsure += [each for each in self.by_hand if each["outcome"] == "unknown"]
        if not self.pids or len(unsure) > MOST_UNSURE:
            return [self.find_owners()]
        subsets = (combinations(unsure, size) for size in range(len(unsure) + 1))
        return [self.find_owners(some) for some in chain.from_iterable(subsets)]


def read_history(path: Path) -> Truth:
    """What the sender wrote down."""
    truth = Truth("")
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        if "explained_to" in line:
            truth.explained_to = {int(p): at for p, at in line["explained_to"].items()}
        elif "run" in line:
            truth.run = line["run"]
            truth.explained_from = {int(p): at for p, at in line["explained_from"].items()}
        elif "pids" in line:
            truth.pids = line["pids"]
        elif line["via"] == "desk":
            truth.by_hand.append(line)
        elif line["via"] == "segments":
            truth.definitions = line.get("definitions", truth.definitions)
        elif line["via"] == "log":
            truth.poison[line["topic"], line["partition"], line["offset"]] = line["what"]
        elif line["outcome"] == "set aside":
            truth.set_aside[line["message_id"]] += line["attempts"]
        elif "person" in line:
            known = truth.calls if line["outcome"] == "acknowledged" else truth.unknown
            known[line["id"]] = line
    return truth.find_owners()


def ids_of(truth: Truth, facts: Iterable[Mapping[str, Any]]) -> tuple[Counter[int], list[str]]:
    """How often each call has a fact, and the facts that belong to no call."""
    by_amount: dict[int, int] = {}
    by_time: dict[int, int] = {}
    for id_, call in (truth.calls | truth.unknown).items():
        if call["amount_micro"]:
            by_amount[call["amount_micro"]] = id_
        else:
            by_time[call["occurred_at_ms"]] = id_
    times: Counter[int] = Counter()
    strangers: list[str] = []
    for fact in facts:
        amount, at_ms = int(fact["amount_micro"]), int(fact["at_ms"])
        of_call = by_amount.get(amount) if amount else by_time.get(at_ms)
        if of_call is None:
            strangers.append(f"amount {amount}, time {at_ms}")
        else:
            times[of_call] += 1
    return times, strangers
