"""What does a call say about what its person allows?

Segment's SDKs stamp `context.consent.categoryPreferences` on calls, RudderStack's
`context.consentManagement`; no object says nothing, and Segment's empty one says no to everything.
`Segment Consent Preference Updated` is sent when the person has just decided, `Unsubscribed` when a
mail's reader left a list. Sec-GPC (Global Privacy Control, which California counts as an opt-out:
CCPA Regulations 7025) says no to sale and advertising, whatever the call beside it says.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from producers.rules.call_fields import Found
from producers.rules.split import JsonObject
from schemas.decisions import ALL_TOPICS, STAMPED_METHOD, Way
from schemas.minors import AUTHORISERS, EXPECTED_BAND, youngest_of

CONSENT_EVENT = "Segment Consent Preference Updated"
UNSUBSCRIBED_EVENT = "Unsubscribed"
GPC_PURPOSES = ("advertising", "sale")
_TOPIC_PROPERTIES = ("topic", "list_id")
_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Stated:
    """One statement: on what ('purpose/sale', 'email/news'), which word, and how it came.

    `is_now`: it holds from when the call was received, not from when it occurred. `age_band` and
    `authorised_by` as the call says them (schemas/minors.py).
    """

    subject_of: str
    status: str
    way: Way
    method: str
    is_now: bool = False
    age_band: str | None = None
    authorised_by: str | None = None

    @property
    def is_refusal(self) -> bool:
        return self.status != "granted"


@dataclass(frozen=True, slots=True)
class Categories:
    """What the names of an SDK's categories stand for; upper and lower case are one."""

    purposes_of: Mapping[str, tuple[str, ...]]
    purposes: frozenset[str]

    @classmethod
    def of(cls, configured: Mapping[str, Iterable[str]], purposes: Iterable[str]) -> "Categories":
        """Of `[consent.categories]`; without any, each declared purpose is its own category."""
        declared = frozenset(purposes)
        named = configured or {name: (name,) for name in declared}
        return cls({name.lower(): tuple(of) for name, of in named.items()}, declared)


def stated_in(
    event: str,
    properties: JsonObject,
    context: JsonObject,
    categories: Categories,
    path: str,
    *,
    has_gpc: bool,
) -> tuple[Stated, ...]:
    """Every statement of a call, at most one a matter. Raises Found where one cannot be read."""
    if not (
        has_gpc
        or "consent" in context
        or "consentManagement" in context
        or event == UNSUBSCRIBED_EVENT
    ):
        return ()
    found: dict[str, Stated] = {}
    way: Way = "stated" if event == CONSENT_EVENT else "stamped"
    method = "consent_event" if event == CONSENT_EVENT else STAMPED_METHOD
    for purpose, is_allowed in _preferences(context, categories, path).items():
        about = f"purpose/{purpose}"
        found[about] = Stated(about, "granted" if is_allowed else "denied", way, method)
    if has_gpc:
        for purpose in GPC_PURPOSES:
            if purpose in categories.purposes:
                about = f"purpose/{purpose}"
                found[about] = Stated(about, "withdrawn", "stated", "gpc", is_now=True)
    if event == UNSUBSCRIBED_EVENT:
        about = f"email/{_topic_of(properties)}"
        found[about] = Stated(about, "unsubscribed", "stated", "email_event")
    age_band, authorised_by = _authority(context, path)
    if age_band is not None or authorised_by is not None:
        return tuple(
            replace(each, age_band=age_band, authorised_by=authorised_by) for each in found.values()
        )
    return tuple(found.values())


def _authority(context: JsonObject, path: str) -> tuple[str | None, str | None]:
    """`ageBand` and `authorisedBy` beside what a call says of consent."""
    age_band = authorised_by = None
    for name in ("consent", "consentManagement"):
        said = context.get(name) or {}
        age_band = said.get("ageBand", age_band)
        if age_band is not None and (type(age_band) is not str or youngest_of(age_band) is None):
            raise Found(f"{path}.context.{name}.ageBand", "wrong_value", EXPECTED_BAND)
        authorised_by = said.get("authorisedBy", authorised_by)
        if authorised_by is not None and authorised_by not in AUTHORISERS:
            expected = " or ".join(AUTHORISERS)
            raise Found(f"{path}.context.{name}.authorisedBy", "wrong_value", expected)
    return age_band, authorised_by


def _preferences(context: JsonObject, categories: Categories, path: str) -> dict[str, bool]:
    """Purpose -> allowed; where several categories speak of one purpose, each must allow it."""
    said = [
        *_segment(context.get("consent"), categories, f"{path}.context.consent"),
        *_rudderstack(context.get("consentManagement"), f"{path}.context.consentManagement"),
    ]
    allowed: dict[str, bool] = {}
    for category, is_allowed in said:
        for purpose in categories.purposes_of.get(category.lower(), ()):
            allowed[purpose] = allowed.get(purpose, True) and is_allowed
    return allowed


def _segment(consent: Any, categories: Categories, path: str) -> list[tuple[str, bool]]:
    if consent is None:
        return []
    if type(consent) is not dict:
        raise Found(path, "wrong_type", "an object")
    preferences = consent.get("categoryPreferences")
    path = f"{path}.categoryPreferences"
    if preferences is None:
        return []
    if type(preferences) is not dict:
        raise Found(path, "wrong_type", "an object of category and true or false")
    if any(type(value) is not bool for value in preferences.values()):
        raise Found(path, "wrong_type", "true or false for each category")
    return list(preferences.items()) or [(name, False) for name in categories.purposes_of]


def _rudderstack(consent: Any, path: str) -> list[tuple[str, bool]]:
    if consent is None:
        return []
    if type(consent) is not dict:
        raise Found(path, "wrong_type", "an object")
    said: list[tuple[str, bool]] = []
    for name, is_allowed in (("allowedConsentIds", True), ("deniedConsentIds", False)):
        ids = consent.get(name)
        if ids is None:
            continue
        if type(ids) is not list or any(type(each) is not str for each in ids):
            raise Found(f"{path}.{name}", "wrong_type", "a list of strings")
        said += ((each, is_allowed) for each in ids)
    return said


def _topic_of(properties: JsonObject) -> str:
    """The topic that was left; every one where it is not told by a plain name."""
    for name in _TOPIC_PROPERTIES:
        value = properties.get(name)
        text = str(value) if type(value) in (str, int) else ""
        if text:
            return text if _TOPIC.fullmatch(text) else ALL_TOPICS
    return ALL_TOPICS
