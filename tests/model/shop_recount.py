"""Were the messages that came due those that should have?

Said twice: they equal those of the reference (tests/model/cart_story.py), and, without it, none came
after an order, a withdrawal or an erasure that the log had. And of those that came due, those are
sent that a wall clock and a calendar allow (tests/model/shop_sending.py): the mails that a server
received, where the shop has a post (tests/model/shop_post.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from schemas.journeys import JourneyDue
from tests.model.cart_story import Fact, Message, Story, messages_of
from tests.model.shop_post import Post
from tests.model.shop_sending import sent_by_reference, sent_by_rules


def broken_promises(
    records: Sequence[JourneyDue],
    stories: Iterable[Story],
    until_ms: int,
    met: Counter[str],
    post: Post | None = None,
) -> set[str]:
    """Which promises `records` break, and mails; what the stories were about is counted in `met`."""
    broken: set[str] = set()
    if len({each.message_id for each in records}) < len(records):
        broken.add("a message was due twice")
    found = _messages_in(records)
    of_person: dict[bytes, list[JourneyDue]] = defaultdict(list)
    for each in records:
        of_person[each.pid].append(each)
    mails = _Mails(post, broken, met) if post is not None else None
    for story in stories:
        expected = messages_of(story, until_ms)
        if found.get(story.pid, []) != expected:
            broken.add(f"messages differ for {story.pid.hex()}")
        for message in found.get(story.pid, []):
            broken |= {why for fact in story.facts if (why := _against(story, message, fact, met))}
        met.update(f"message {each.number}" for each in expected)
        met["people with none"] += not expected
        due_ms = {each.message_id: each.due_at_ms for each in of_person[story.pid]}
        due = list(zip(due_ms.values(), expected, strict=False))
        if len(due_ms) == len(expected):
            if mails is not None:
                sent = mails.compare(story, due, list(due_ms))
            else:
                sent = sent_by_reference(story, due)
                if sent_by_rules(story, due) != sent:
                    broken.add(f"messages sent differ for {story.pid.hex()}")
            met["sent"] += len(sent)
            met["held"] += sum(at_ms > message.at_ms for at_ms, message in sent)
            met["not sent"] += len(due) - len(sent)
    if mails is not None:
        mails.look_at_rest()
    return broken


class _Mails:
    """What a server received, compared with what the reference says of each person."""

    def __init__(self, post: Post, broken: set[str], met: Counter[str]) -> None:
        self._post = post
        self._broken = broken
        self._met = met
        self._mailed = {each.message_id: each for each in post.mailed}
        self._of_nobody = set(self._mailed)
        if len(self._mailed) < len(post.mailed):
            broken.add("a mail came twice")
        met.update(post.fate.met)

    def compare(
        self, story: Story, due: Sequence[tuple[int, Message]], ids: Sequence[bytes]
    ) -> list[tuple[int, Message]]:
        """What should have been begun; which of it came may only be in doubt where its process
        died while it was being sent."""
        fate = self._post.fate
        expected = sent_by_reference(story, due, [fate.waits.get(each, {}) for each in ids])
        id_of = {message: each for (_, message), each in zip(due, ids, strict=True)}
        begun = {id_of[message]: at_ms for at_ms, message in expected}
        for message, message_id in id_of.items():
            mail = self._mailed.get(message_id)
            in_doubt = message_id in fate.interrupted
            came = mail is not None
            self._met["interrupted, and came"] += in_doubt and came
            self._met["interrupted, and did not come"] += in_doubt and not came
            if (message_id not in begun) if came or in_doubt else (message_id in begun):
                self._broken.add(f"mails differ for {story.pid.hex()}")
            if in_doubt and story.pid not in self._post.erased:
                self._broken |= self._wrong_of_interrupted(story.pid, message_id)
            if mail is None:
                continue
            self._of_nobody.discard(message_id)
            if mail.at_ms != begun.get(message_id) or mail.to != self._post.addresses[story.pid]:
                self._broken.add(f"a mail at a wrong time or to somebody else: {story.pid.hex()}")
            then, about = replace(message, at_ms=mail.at_ms), Counter[str]()
            self._broken |= {
                f"mailed: {why}" for f in story.facts if (why := _against(story, then, f, about))
            }
        return expected

    def look_at_rest(self) -> None:
        """Nothing came that was never due, nothing is left to do, and all that went was told."""
        post = self._post
        self._broken |= post.fate.wrong
        if self._of_nobody:
            self._broken.add("a mail that was never due")
        if post.store.next_wake_ms() is not None:
            self._broken.add("automation is not at rest")
        if any(post.store.remains_of(sorted(post.erased))):
            self._broken.add("something is left of who was erased")
        known = self._mailed.keys() - post.fate.interrupted
        gone = {post.addresses[pid] for pid in post.erased}
        untold = {each for each in known - post.told if self._mailed[each].to not in gone}
        if untold or not post.told <= known:
            self._broken.add("told of other mails than went")
        self._met["mails"] = len(self._mailed)

    def _wrong_of_interrupted(self, pid: bytes, message_id: bytes) -> set[str]:
        last = [
            each.decisions[-1]
            for each in self._post.store.of_person([pid])
            if each.message.id == message_id.hex()
        ]
        if [(each.state, each.rule) for each in last] == [("failed", "interrupted")]:
            return set()
        return {"what was interrupted is not shown so"}


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
