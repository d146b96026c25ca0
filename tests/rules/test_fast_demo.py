"""Does the fast demo name each difference, and say a moment in words that a newcomer reads?

The house's answers are written down here as its API gives them.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from headwater.cli import app
from headwater.fast_verdict import Judged, judge
from headwater.fast_words import line_of, summary_of
from producers.rules.cart_days import Customer, Deed, Story
from producers.rules.cart_ledger import messages_of, moves_of
from schemas.errors import SettingInvalid

BEGINS_MS = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp()) * 1000
HOUR_MS = 3_600_000
SOMEBODY = Customer(1, "UTC")
CART = Deed(SOMEBODY, "add", BEGINS_MS + 21 * HOUR_MS, BEGINS_MS + 21 * HOUR_MS, 0)
STORY = Story((SOMEBODY,), (CART,), BEGINS_MS)


def written(hours: float) -> str:
    at = datetime.fromtimestamp((BEGINS_MS + hours * HOUR_MS) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sent_at(number: int, due: float, sent: float) -> dict[str, Any]:
    held = {"at": written(due), "state": "held", "rule": "quiet_hours", "until": written(sent)}
    # Three seconds late: something had to be tried again.
    went = {"at": written(sent + 0.001), "state": "sent", "rule": None, "until": None}
    return {"journey_id": "cart", "step": number, "state": "sent", "decisions": [held, went]}


class House:
    """What a house answers whose journey did this."""

    def __init__(self, messages: list[dict[str, Any]], sent: int) -> None:
        self._messages, self._sent = messages, sent

    def get(self, path: str, _role: str) -> dict[str, object]:
        if path.startswith("/v1/messages"):
            return {"messages": self._messages if path.endswith("customer-1") else []}
        return {"campaigns": [{"campaign_id": "cart", "counters": {"sent": self._sent}}]}


def judged(messages: list[dict[str, Any]], sent: int) -> Judged:
    house: Any = House(messages, sent)
    others = Counter({("repeat_buyers", "entered", BEGINS_MS): 1})
    return judge(house, STORY, moves_of(STORY) + others, lambda _: True)  # type: ignore[operator]


def test_what_was_sent_in_the_morning_equals_the_ledger() -> None:
    answer = judged([sent_at(1, 22, 32), sent_at(2, 46, 56)], 2)
    assert answer.wrong == []
    assert answer.found == messages_of(STORY)


@pytest.mark.parametrize(
    ("messages", "sent", "difference"),
    [
        ([sent_at(1, 22, 32)], 1, "expected and not there: cart 2 to customer-1"),
        ([sent_at(1, 22, 22), sent_at(2, 46, 56)], 2, "there and not expected: cart 1 to cust"),
        ([sent_at(1, 22, 32), sent_at(2, 46, 56)], 1, "campaign cart: expected 2 sent, got 1"),
    ],
)
def test_message_that_is_missing_early_or_uncounted_is_named(
    messages: list[dict[str, Any]], sent: int, difference: str
) -> None:
    assert any(line.startswith(difference) for line in judged(messages, sent).wrong)


def test_moment_is_said_in_words() -> None:
    now_ms = BEGINS_MS + 32 * HOUR_MS
    late = Deed(SOMEBODY, "order", now_ms - HOUR_MS, now_ms, 1)
    decided = [("sent", "", None), ("sent", "", None), ("dropped", "day_cap", None)]
    held = ("held", "quiet_hours", now_ms + 24 * HOUR_MS)
    assert line_of(now_ms, [late], [*decided, held], Counter({("eager", "left", now_ms): 1})) == (
        "Tue 08:00  1 ordered at Tue 07:00, heard of only now; "
        "1 message dropped (had one that day already); "
        "1 message held until Wed 08:00 (night at the customer's); 2 messages sent; "
        "1 left eager as time passed"
    )
    assert line_of(now_ms, [], [], Counter()) == ""


def test_summary_counts_every_message() -> None:
    found = judged([sent_at(1, 22, 32), sent_at(2, 46, 56)], 2).found
    first, *_ = summary_of(found)
    assert first == "Of 2 messages that came due 2 were sent."


def test_fast_clock_takes_no_rate() -> None:
    answer = CliRunner().invoke(app, ["demo", "--fast-clock", "--rate", "5"])
    assert isinstance(answer.exception, SettingInvalid)
    assert "--rate" in str(answer.exception)
