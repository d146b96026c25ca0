"""What stands in the fields of a call, and what should?

Each function gives a field's value or says, by raising Found, what belongs there instead. Found
never leaves `check_call`, which makes it a value: with some twenty things that can be wrong, the
chain reads better without twenty branches.
"""

from collections.abc import Mapping
from typing import Literal

from producers.rules.shapes import Fault
from producers.rules.split import CAMPAIGN_FIELDS, JsonObject
from schemas.identifiers import email_of, phone_of
from schemas.money import EXPECTED as EXPECTED_AMOUNT
from schemas.money import parse_micro

IdType = Literal["user", "anonymous", "email", "phone"]

TYPES = ("track", "identify", "page", "screen", "group", "alias")
LONGEST_MESSAGE_ID = 100
LONGEST_EVENT_NAME = 200
LONGEST_IDENTIFIER = 512
_MONEY = ("total", "revenue", "value")
_CAMPAIGN_PROPERTIES = ("campaign_id", "campaign_name")


class Found(Exception):
    """A fault was found; the call ends here."""

    def __init__(self, path: str, reason: str, expected: str) -> None:
        super().__init__(reason)
        self.fault = Fault(path, reason, expected)


def type_of(call: JsonObject, path: str) -> str:
    """The call's type, one of TYPES."""
    kind = call.get("type")
    if kind is None:
        raise Found(f"{path}.type", "missing_type", f"one of {', '.join(TYPES)}")
    if type(kind) is not str or kind not in TYPES:
        raise Found(f"{path}.type", "unknown_type", f"one of {', '.join(TYPES)}")
    return kind


def object_of(call: JsonObject, name: str, path: str) -> JsonObject:
    """The object under `name`; empty when it is absent or null."""
    value = call.get(name)
    if value is None:
        return {}
    if type(value) is not dict:
        raise Found(f"{path}.{name}", "wrong_type", "an object")
    return value


def message_id_of(call: JsonObject, path: str) -> str | None:
    """The client's messageId; None when one must be made."""
    message_id = call.get("messageId")
    if message_id is None or message_id == "":
        return None
    if type(message_id) is not str:
        raise Found(f"{path}.messageId", "wrong_type", "a string")
    if len(message_id) > LONGEST_MESSAGE_ID:
        raise Found(f"{path}.messageId", "too_long", f"at most {LONGEST_MESSAGE_ID} characters")
    return message_id


def event_of(call: JsonObject, kind: str, path: str) -> str:
    """The event's name of a track call; empty for the other types."""
    if kind != "track":
        return ""
    event = call.get("event")
    if event is None or event == "":
        raise Found(f"{path}.event", "missing_event", "the event's name: a track call needs one")
    if type(event) is not str:
        raise Found(f"{path}.event", "wrong_type", "a string")
    if len(event) > LONGEST_EVENT_NAME:
        raise Found(f"{path}.event", "too_long", f"at most {LONGEST_EVENT_NAME} characters")
    return event


def identifiers_of(
    call: JsonObject, traits: JsonObject, context: JsonObject, path: str
) -> dict[IdType, str]:
    """Every identifier of the call; the first names its person: userId, anonymousId, e-mail.

    A telephone number never does: too many who share one write it in too many ways. Only by this
    rule does a call sent again reach the same lane, whatever was learnt in between.
    """
    ids: dict[IdType, str] = {}
    user = _identifier(call, "userId", path)
    if user is not None:
        ids["user"] = user
    anonymous = _identifier(call, "anonymousId", path)
    if anonymous is not None:
        ids["anonymous"] = anonymous
    email = traits.get("email")
    where = f"{path}.traits.email"
    if not email and type(context.get("traits")) is dict:
        email = context["traits"].get("email")
        where = f"{path}.context.traits.email"
    if type(email) is str and len(email) > LONGEST_IDENTIFIER:
        if not ids:
            raise Found(where, "too_long", f"at most {LONGEST_IDENTIFIER} characters")
    elif type(email) is str and (address := email_of(email)) is not None:
        ids["email"] = address
    if not ids:
        raise Found(path, "missing_identifier", "userId, anonymousId or an e-mail in the traits")
    phone = traits.get("phone")
    if not phone and type(context.get("traits")) is dict:
        phone = context["traits"].get("phone")
    if type(phone) is int:
        phone = str(phone)
    if type(phone) is str and (number := phone_of(phone)) is not None:
        ids["phone"] = number
    return ids


def previous_of(call: JsonObject, kind: str, path: str) -> str | None:
    """The previousId of an alias call: what its user was known by before."""
    return _identifier(call, "previousId", path) if kind == "alias" else None


def _identifier(call: JsonObject, name: str, path: str) -> str | None:
    value = call.get(name)
    if value is None or value == "":
        return None
    if type(value) is str and value.isspace():
        return None  # an empty field of a form: everybody would be one person by it
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise Found(f"{path}.{name}", "wrong_type", "a string or whole number")
    if len(value) > LONGEST_IDENTIFIER:
        raise Found(f"{path}.{name}", "too_long", f"at most {LONGEST_IDENTIFIER} characters")
    return value


def refuse_nul(
    call: JsonObject, ids: Mapping[IdType, str], event: str, message_id: str | None, path: str
) -> None:
    """Names that people, campaigns and calls are found by hold no NUL: for some tool of every
    store it ends the string, and two names become one."""
    properties, context = call.get("properties") or {}, call.get("context") or {}
    campaign = context.get("campaign")
    named: dict[str, object] = {
        "messageId": message_id,
        "event": event,
        "userId": ids.get("user"),
        "anonymousId": ids.get("anonymous"),
        "traits.email": ids.get("email"),
        "previousId": call.get("previousId"),
    }
    for name in _CAMPAIGN_PROPERTIES:
        named[f"properties.{name}"] = properties.get(name)
    if type(campaign) is dict:
        for name in CAMPAIGN_FIELDS:
            named[f"context.campaign.{name}"] = campaign.get(name)
    for name, value in named.items():
        if type(value) is str and "\0" in value:
            raise Found(f"{path}.{name}", "null_character", "text without NUL characters")


def check_money(properties: JsonObject, path: str) -> JsonObject:
    """The properties of an order with its currency in capitals, once its money can be added."""
    amounts = [name for name in _MONEY if properties.get(name) is not None]
    for name in amounts:
        if parse_micro(properties[name]) is None:
            raise Found(f"{path}.properties.{name}", "not_an_amount", EXPECTED_AMOUNT)
    if not amounts:
        return properties
    currency = properties.get("currency")
    where = f"{path}.properties.currency"
    if currency is None:
        raise Found(where, "missing_currency", "an ISO 4217 code such as EUR beside an amount")
    if not (
        type(currency) is str and len(currency) == 3 and currency.isascii() and currency.isalpha()
    ):
        raise Found(where, "not_a_currency", "an ISO 4217 code of three letters such as EUR")
    return properties if currency.isupper() else properties | {"currency": currency.upper()}
