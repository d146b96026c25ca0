"""Is this a call of Segment's protocol that can be counted, and what does it become?

The first fault that is found sets a call aside, alone. What passes is hashed, dated and split here;
only resolving the person and sealing remain, because they need the vault.
"""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from producers.rules.call_fields import (
    LONGEST_MESSAGE_ID,
    Found,
    IdType,
    check_money,
    event_of,
    identifiers_of,
    message_id_of,
    object_of,
    previous_of,
    refuse_nul,
    type_of,
)
from producers.rules.call_keys import CallKeys
from producers.rules.claims import Identifier, one_person_of
from producers.rules.enrichment import Enricher, Requester
from producers.rules.shapes import Fault, find_too_large, find_unwritable
from producers.rules.split import CAMPAIGN_FIELDS, ClearNames, JsonObject, split_call
from producers.rules.stated import Categories, Stated, stated_in
from producers.rules.times import (
    EXPECTED,
    EXPECTED_SPAN,
    TimeLimits,
    When,
    decide_when,
    parse_time_ms,
)
from schemas.events import FLAG_MESSAGE_ID_MADE

_ORDER_EVENTS = frozenset({"Order Completed", "Order Refunded"})
# Sending the same call again changes these, and the call is still the same.
_UNSTABLE = frozenset({"sentAt", "receivedAt", "writeKey"})
_TAKEN_APART = _UNSTABLE | frozenset(
    {
        "anonymousId",
        "context",
        "event",
        "messageId",
        "originalTimestamp",
        "properties",
        "timestamp",
        "traits",
        "type",
        "userId",
    }
)
_TOLD_NAMES = (
    _TAKEN_APART
    | CAMPAIGN_FIELDS
    | {"campaign", "products", "currency", "email", "groupId", "previousId", "name"}
    | {"total", "revenue", "value"}
)


@dataclass(frozen=True, slots=True)
class CallRules:
    """What is the same for every call; `new_message_id` gives one that nobody has, and without an
    `enricher` calls are only checked."""

    keys: CallKeys
    clear: ClearNames
    times: TimeLimits
    new_message_id: Callable[[], str]
    categories: Categories
    enricher: Enricher | None = None

    @property
    def told_names(self) -> frozenset[str]:
        """Field names that a fault's path may show."""
        return _TOLD_NAMES | self.clear.properties


@dataclass(frozen=True, slots=True)
class Arrival:
    """How one call came: `path` is its place in the body, `type` the route's or None for batch,
    `has_gpc` whether its request bore Sec-GPC, `requester` who sent that, if it was a person's own
    device."""

    source: str
    received_at_ms: int
    sent_at: object
    path: str
    type: str | None
    context: object = None
    has_gpc: bool = False
    requester: Requester | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A call that may enter the log once its person is resolved and the plain parts are sealed.

    `traits` are (hashed name, JSON [name, value]); `plain` is the JSON of all that is not clear.
    `stated` is what it says of consent, `others` are its identifiers beside the first, `one_person`
    those of which it says that they are one person's (none if it says it of nobody).
    """

    id_type: IdType
    external_id: str
    event_id: bytes
    type: str
    event: str
    occurred_at_ms: int
    sent_at_ms: int | None
    flags: int
    body_digest: int
    clear: bytes
    traits: tuple[tuple[bytes, bytes], ...]
    plain: bytes
    stated: tuple[Stated, ...] = ()
    others: tuple[Identifier, ...] = ()
    one_person: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that is set aside; `message_id` as far as it can be told."""

    fault: Fault
    message_id: str | None


def check_call(call: object, arrival: Arrival, rules: CallRules) -> Checked | Refused:
    """What becomes of one call. Total: any JSON value has an answer."""
    if type(call) is not dict:
        return Refused(Fault(arrival.path, "wrong_type", "a JSON object"), None)
    try:
        return _check(call, arrival, rules)
    except Found as found:
        return Refused(found.fault, _tellable(call.get("messageId")))


def _check(call: JsonObject, arrival: Arrival, rules: CallRules) -> Checked:
    path = arrival.path
    call = _completed(call, arrival)
    canonical = _canonical(call, path, rules)
    kind = type_of(call, path)
    properties = object_of(call, "properties", path)
    traits = object_of(call, "traits", path)
    context = object_of(call, "context", path)
    message_id = message_id_of(call, path)
    event = event_of(call, kind, path)
    # The traits of a group are no person's.
    ids = identifiers_of(call, {} if kind == "group" else traits, context, path)
    if b"\\u0000" in canonical:
        refuse_nul(call, ids, event, message_id, path)
    if event in _ORDER_EVENTS:
        properties = check_money(properties, path)
    sent_at_ms = parse_time_ms(call.get("sentAt") or arrival.sent_at)
    when = _when_of(call, sent_at_ms, arrival, rules.times)
    flags = when.flags
    if message_id is None:
        message_id, flags = rules.new_message_id(), flags | FLAG_MESSAGE_ID_MADE
    named_for_a_person = traits if kind == "identify" else {}
    split = split_call(properties, context, named_for_a_person, rules.clear, event)
    clear = split.clear
    if rules.enricher is not None:
        made = rules.enricher.made_of(event, context, arrival.requester, arrival.received_at_ms)
        if made:
            clear["context"] = clear.get("context", {}) | made
    rest = split.rest | {"ids": ids, "message_id": message_id}
    rest.pop("traits", None)  # these travel one by one, sealed each
    if traits and not named_for_a_person:
        rest["traits"] = traits
    other = {name: value for name, value in call.items() if name not in _TAKEN_APART}
    if other:
        rest["call"] = other
    id_type = next(iter(ids))
    one_person = one_person_of(kind, ids, previous_of(call, kind, path))
    stated = stated_in(event, properties, context, rules.categories, path, has_gpc=arrival.has_gpc)
    return Checked(
        id_type,
        ids[id_type],
        rules.keys.event_id_of(arrival.source, message_id),
        kind,
        event,
        when.occurred_at_ms,
        sent_at_ms,
        flags,
        rules.keys.digest_of(canonical),
        orjson.dumps(clear),
        tuple(
            (rules.keys.trait_key_of(name), orjson.dumps([name, value]))
            for name, value in named_for_a_person.items()
        ),
        orjson.dumps(rest),
        stated,
        tuple(ids.items())[1:],
        one_person,
    )


def _completed(call: JsonObject, arrival: Arrival) -> JsonObject:
    """The call with the type of its route and the context of its batch, where it has none."""
    if arrival.type is not None:
        call = call | {"type": arrival.type}
    if type(arrival.context) is dict and type(call.get("context") or {}) is dict:
        call = call | {"context": arrival.context | (call.get("context") or {})}
    return call


def _canonical(call: JsonObject, path: str, rules: CallRules) -> bytes:
    """The call as JSON with sorted names, without what differs between two sendings."""
    stable = {name: value for name, value in call.items() if name not in _UNSTABLE}
    try:
        canonical = orjson.dumps(stable, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson's JSONEncodeError is one
        fault = find_unwritable(stable, path, rules.told_names) or Fault(path, "not_json", "JSON")
    else:
        too_large = find_too_large(stable, canonical, path, rules.told_names)
        if too_large is None:
            return canonical
        fault = too_large
    raise Found(fault.path, fault.reason, fault.expected)


def _when_of(
    call: JsonObject, sent_at_ms: int | None, arrival: Arrival, limits: TimeLimits
) -> When:
    name = "timestamp" if call.get("timestamp") is not None else "originalTimestamp"
    written = call.get(name)
    written_ms = None
    if written is not None:
        written_ms = parse_time_ms(written)
        if written_ms is None:
            raise Found(f"{arrival.path}.{name}", "not_a_time", EXPECTED)
    when = decide_when(written_ms, sent_at_ms, arrival.received_at_ms, limits)
    if when is None:
        raise Found(f"{arrival.path}.{name}", "time_out_of_range", EXPECTED_SPAN)
    return when


def _tellable(message_id: object) -> str | None:
    """The messageId for the record of the rejection: cut to length, any half character replaced."""
    if type(message_id) is not str or not message_id:
        return None
    return message_id[:LONGEST_MESSAGE_ID].encode("utf-8", "replace").decode()
