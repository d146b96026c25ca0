"""What must Headwater show, by a file of history alone?

Shares no code with the product.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS = {
    "Email Sent": "sent",
    "Email Opened": "opened",
    "Product Viewed": "product_views",
    "Product Added": "cart_adds",
    "Order Completed": "orders",
    "page": "page_views",
    "identify": "",
}
"""What a call adds one to."""


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

    @property
    def people(self) -> set[str]:
        return {call["person"] for call in (*self.calls.values(), *self.unknown.values())}


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
        elif line["via"] == "log":
            truth.poison[line["topic"], line["partition"], line["offset"]] = line["what"]
        elif line["outcome"] == "set aside":
            truth.set_aside[line["message_id"]] += line["attempts"]
        elif "person" in line:
            known = truth.calls if line["outcome"] == "acknowledged" else truth.unknown
            known[line["id"]] = line
    return truth


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
