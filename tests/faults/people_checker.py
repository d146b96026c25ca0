"""Is everybody one person who should be, in the segments that hold, and told what is due?

By the history alone; shares no code with the product. What it cannot know it does not ask: a fact
that was on its way when a message was decided may have counted or not, and each way is right.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

from tests.faults.seen import Seen
from tests.faults.truth import Truth
from tests.faults.who_is_who import all_above

HOUR_MS = 3_600_000
WAIT_MS = HOUR_MS
"""From the last change of a cart to the message about it (tests/faults/rig.py)."""
BUILT_IN = {"id": "repeat_buyers", "condition": {"computed": "orders", "at_least": 2}}
TOLD = 3
Json = Mapping[str, Any]


# -- who is who


def judge_persons(truth: Truth, seen: Seen) -> list[str]:
    """Every lane's record says who belongs to whom, and ClickHouse counts people by it."""
    names = {pid: name for name, pid in truth.pids.items()}

    def name_of(pid: bytes | None) -> str | None:
        return None if pid is None else names.get(pid.hex(), pid.hex())

    found = []
    below: dict[str, set[str]] = defaultdict(set)
    for name in truth.pids:
        for above in all_above(name, truth.owner_of):
            below[above].add(name)
    for name in sorted(truth.pids):
        record = seen.records.get(name)
        owner = truth.owner_of.get(name)
        if record is None:
            if owner is not None or below[name]:
                found.append(f"{name} has no record, and is not alone")
            continue
        if name_of(record["moved_to"]) != owner:
            found.append(f"{name} belongs to {name_of(record['moved_to'])}, truth {owner}")
        members = [name_of(each["pid"]) for each in record["members"]]
        if sorted(map(str, members)) != sorted(below[name]):
            found.append(f"{name} has members {members}, truth {sorted(below[name])}")
    wanted = {
        (truth.root_of(name), name) for name in truth.pids if truth.root_of(name) != name
    }  # fmt: skip
    links = {(names.get(root, root), names.get(member, member)) for root, member in seen.links}
    found += [f"no link of {member} to {root}" for root, member in sorted(wanted - links)]
    found += [f"a link of {member} to {root}" for root, member in sorted(links - wanted)]
    return found


# -- segments


def judge_segments(truth: Truth, seen: Seen, counting: Sequence[Json]) -> list[str]:
    """Everybody is in the segments whose condition holds, and what was told leads there."""
    definitions = seen.definitions or []
    found = []
    # Later runs on the same servers define them anew.
    is_newest = _run_of(definitions) == _run_of(truth.definitions or ())
    if is_newest and definitions != (truth.definitions or []):
        found.append("the segments on the log are not those that were applied last")
    by_root: dict[str, list[Json]] = defaultdict(list)
    for call in counting:
        by_root[truth.root_of(call["person"])].append(call)
    told: dict[tuple[str, str], list[bool]] = defaultdict(list)
    places = set()
    for each in seen.changes:
        told[each["pid"].hex(), each["segment_id"]].append(each["entered"])
        places.add((each["generation"], each["lane"], each["seq"], each["index"]))
    if len(places) != len(seen.changes):
        found.append("a change of a segment is told twice at one place")
    for name, pid in sorted(truth.pids.items()):
        record = seen.records.get(name)
        is_root = truth.root_of(name) == name
        wanted = set()
        if is_root and record is not None:
            wanted = members(definitions, by_root[name], seen.looked_at_ms)
        if record is not None and set(record["segments"]) != wanted:
            found.append(f"{name} is in {sorted(record['segments'])}, truth {sorted(wanted)}")
        entered = set()
        for (of, id_), changes in told.items():
            if of != pid:
                continue
            if any(now == before for before, now in zip([False, *changes], changes, strict=False)):
                found.append(f"{name} enters and leaves {id_} in no turn: {changes}")
            if changes[-1]:
                entered.add(id_)
        if entered != wanted:
            found.append(f"{name} was told to be in {sorted(entered)}, truth {sorted(wanted)}")
        shown = seen.profiles.get(name, {}).get("segments")
        if is_root and shown is not None and set(shown) != wanted:
            found.append(f"{name} is shown in {sorted(shown)}, truth {sorted(wanted)}")
    return found


def _run_of(definitions: Sequence[Json]) -> str:
    return str(definitions[0]["name"]).partition(" ")[0] if definitions else ""


def members(definitions: Sequence[Json], calls: Sequence[Json], now_ms: int) -> set[str]:
    """The segments that somebody of these calls is in at that time."""
    conditions = {each["id"]: each["condition"] for each in (BUILT_IN, *definitions)}

    def holds(condition: Json) -> bool:
        if "all" in condition:
            return all(map(holds, condition["all"]))
        if "any" in condition:
            return any(map(holds, condition["any"]))
        if "not" in condition:
            return not holds(condition["not"])
        if "segment" in condition:
            return holds(conditions[condition["segment"]])
        if "event" in condition:
            hours = 24 * condition.get("within_days", 0) + condition.get("within_hours", 0)
            count = sum(
                call["event"] == condition["event"]
                and now_ms < call["occurred_at_ms"] + hours * HOUR_MS
                and all(call.get(key) == said for key, said in condition.get("where", {}).items())
                for call in calls
            )
            return bool(count >= condition.get("at_least", 1))
        orders = [call for call in calls if call["event"] == "Order Completed"]
        micro = sum(call["amount_micro"] for call in orders)
        value = {"orders": len(orders), "events": len(calls), "spent": micro / 1e6}
        # Of what never was no comparison is true.
        is_known = condition["computed"] != "spent" or bool(orders)
        return is_known and bool(value[condition["computed"]] >= condition["at_least"])

    return {id_ for id_, condition in conditions.items() if holds(condition)}


# -- carts


def judge_journeys(truth: Truth, seen: Seen) -> list[str]:
    """To everybody with a cart left behind one message is due, about what was in it."""
    found = []
    ids = [each["message_id"] for each in seen.due]
    if len(ids) != len(set(ids)):
        found.append(f"{len(ids) - len(set(ids))} messages are due twice")
    facts: dict[str, list[Json]] = defaultdict(list)
    for call in (*truth.calls.values(), *truth.unknown.values()):
        if "cart" in call:
            facts[truth.root_of(call["person"])].append(call)
    names = {pid: name for name, pid in truth.pids.items()}
    due: dict[str, list[tuple[str, Json]]] = defaultdict(list)
    for message in seen.due:
        name = names[message["pid"].hex()]
        due[truth.root_of(name)].append((name, message))
    for person in sorted(facts.keys() | due.keys()):
        messages = sorted(due[person], key=lambda each: int(each[1]["decided_at_ms"]))
        found += [f"{person}: {text}" for text in _too_early(messages)]
        if not _is_shopper(person):
            continue  # of whom too much is on its way to tell what was known
        found += [f"{person}: {text}" for text in _wrong_of(truth, facts[person], messages)]
        if all(call["outcome"] == "acknowledged" for call in facts[person]):
            found += _missing(person, facts[person], messages)
    return found


def cart_of(facts: Iterable[Json]) -> tuple[dict[str, int], int]:
    """Products and how many of each lie in the cart, and when it was changed last."""
    ordered_ms = max((f["occurred_at_ms"] for f in facts if f["cart"] == "order"), default=-1)
    held: dict[str, int] = {}
    anchor_ms = 0
    for fact in sorted(facts, key=lambda fact: int(fact["occurred_at_ms"])):
        if fact["occurred_at_ms"] <= ordered_ms:
            continue
        anchor_ms = fact["occurred_at_ms"]
        if fact["cart"] == "add":
            held[fact["product"]] = held.get(fact["product"], 0) + 1
        else:
            held.pop(fact["product"], None)
    return held, anchor_ms


def _too_early(messages: Sequence[tuple[str, Json]]) -> list[str]:
    return [
        f"due about {each['anchor_at_ms']}, decided too early at {each['decided_at_ms']}"
        for _, each in messages
        if each["decided_at_ms"] < each["anchor_at_ms"] + WAIT_MS
    ]


def _wrong_of(
    truth: Truth, facts: Sequence[Json], messages: Sequence[tuple[str, Json]]
) -> list[str]:
    found = []
    before_ms = -1
    for name, message in messages:
        decided_ms, anchor_ms = message["decided_at_ms"], message["anchor_at_ms"]
        lines = {line["product_id"]: line["quantity"] for line in message["lines"]}
        if anchor_ms + WAIT_MS < before_ms:
            found.append("due about a cart that was passed over by the message before")
        before_ms = decided_ms
        if not any(cart_of(some) == (lines, anchor_ms) for some in _known(name, facts, decided_ms)):
            found.append(f"due about {lines} of {anchor_ms}, decided at {decided_ms}: never so")
        if _had_joined(truth, name, decided_ms):
            found.append(f"due to {name}, who was known to be somebody's")
    anchors = [(name, message["anchor_at_ms"]) for name, message in messages]
    if len(anchors) != len(set(anchors)):
        found.append(f"due twice about one cart: {anchors[:TOLD]}")
    return found


def _known(name: str, facts: Sequence[Json], at_ms: int) -> Iterable[list[Json]]:
    """What the lane of `name` may have known then.

    All that was acknowledged before must be: its log held it. What lies in other lanes was on its
    way for a moment.
    """
    sure = [f for f in facts if f["person"] == name and f.get("answered_at_ms", at_ms) < at_ms]
    sure = [fact for fact in sure if fact["outcome"] == "acknowledged"]
    open_ = [fact for fact in facts if fact not in sure and fact["made_at_ms"] <= at_ms]
    subsets = (combinations(open_, size) for size in range(len(open_) + 1))
    return ([*sure, *some] for some in chain.from_iterable(subsets))


def _had_joined(truth: Truth, name: str, at_ms: int) -> bool:
    return truth.root_of(name) != name and any(
        name in call.get("one_person", ()) and call["answered_at_ms"] < at_ms
        for call in truth.calls.values()
    )


def _missing(person: str, facts: Sequence[Json], messages: Sequence[tuple[str, Json]]) -> list[str]:
    held, anchor_ms = cart_of(facts)
    if not held:
        return []
    if any(message["anchor_at_ms"] == anchor_ms for _, message in messages):
        return []
    if any(anchor_ms + WAIT_MS < message["decided_at_ms"] for _, message in messages):
        return []  # changed before a message that was late: then nothing more is due
    return [f"{person}: no message is due about the cart of {anchor_ms}"]


def _is_shopper(person: str) -> bool:
    return person.rpartition("/")[2][:1] in ("s", "d")
