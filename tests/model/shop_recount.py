"""Were the messages that came due those that should have?

Said twice: they equal those of the reference (tests/model/cart_story.py), and, without it, none came
after an order, a withdrawal or an erasure that the log had. And of those that came due, those are
sent that a wall clock and a calendar allow (tests/model/shop_sending.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from schemas.journeys import JourneyDue
from tests.model.cart_story import Fact, Message, Story, messages_of
from tests.model.shop_sending import sent_by_reference, sent_by_rules


def broken_promises(
    records: Sequence[JourneyDue], stories: Iterable[Story], until_ms: int, met: Counter[str]
) -> set[str]:
    """Which promises `records` break; what the stories were about is counted in `met`."""
    broken: set[str] = set()
    if len({each.message_id for each in records}) < len(records):
        broken.add("a message was due twice")
    found = _messages_in(records)
    for story in stories:
        expected = messages_of(story, until_ms)
        if found.get(story.pid, []) != expected:
            broken.add(f"messages differ for {story.pid.hex()}")
        for message in found.get(story.pid, []):
            broken |= {why for fact in story.facts if (why := _against(story, message, fact, met))}
        met.update(f"message {each.number}" for each in expected)
        met["people with none"] += not expected
        due_ms = {each.message_id: each.due_at_ms for each in records if each.pid == story.pid}
        due = list(zip(due_ms.values(), expected, strict=False))
        if len(due_ms) == len(expected):
            sent = sent_by_reference(story, due)
            if sent_by_rules(story, due) != sent:
                broken.add(f"messages sent differ for {story.pid.hex()}")
            met["sent"] += len(sent)
            met["held"] += sum(at_ms > message.at_ms for at_ms, message in sent)
            met["not sent"] += len(due) - len(sent)
    return broken


def _messages_in(records: Iterable[JourneyDue]) -> dict[bytes, list[Message]]:
    found: dict[bytes, list[Message]] = {}
    for each in sorted(records, key=lambda each: each.decided_at_ms):
        products = tuple(
            sorted(name for line in each.lines for name in [line.product_id] * line.quantity)
        )
        message = Message(each.decided_at_ms, each.step, each.anchor_at_ms, products)
        found.setdefault(each.pid, []).append(message)
    return found


def _against(story: Story, message: Message, fact: Fact, met: Counter[str]) -> str:
    """Why the message should not have been, because of that fact; empty if it is no reason."""
    if fact.arrives_at_ms > message.at_ms:
        was_in_time = message.anchor_ms <= fact.occurred_at_ms < message.at_ms
        met["order came too late"] += fact.kind == "order" and was_in_time
        return ""
    if fact.kind == "order":
        met["ordered in time"] += 1
        was_before = fact.occurred_at_ms < message.anchor_ms
        return "" if was_before or _is_unseen(story, fact) else "a message after an order"
    if fact.kind == "withdraw":
        met["withdrew in time"] += 1
        was_before = fact.arrives_at_ms < message.anchor_ms
        return "" if was_before else "a message after a withdrawal"
    return "a message after an erasure" if fact.kind == "erase" else ""


def _is_unseen(story: Story, order: Fact) -> bool:
    """Some decision lies between it and its arrival, or a withdrawal stands: it is withheld."""
    decisions = [each for each in story.facts if each.kind in ("withdraw", "grant")]
    then = [each for each in decisions if each.arrives_at_ms <= order.occurred_at_ms]
    later = [each for each in decisions if each.arrives_at_ms <= order.arrives_at_ms]
    return len(then) != len(later) or len(then) % 2 == 1
