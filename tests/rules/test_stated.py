"""What does a call say of consent, in whichever words its SDK uses?"""

from typing import Any

import pytest

from producers.rules.call_fields import Found
from producers.rules.stated import Categories, Stated, stated_in

PURPOSES = ("advertising", "analytics", "personalisation", "sale")
OWN_NAMES = Categories.of({}, PURPOSES)
MAPPED = Categories.of({"Marketing": ("advertising", "sale"), "C0002": ("analytics",)}, PURPOSES)


def said(
    context: dict[str, Any] | None = None,
    *,
    event: str = "E",
    properties: dict[str, Any] | None = None,
    categories: Categories = OWN_NAMES,
    has_gpc: bool = False,
) -> dict[str, Stated]:
    found = stated_in(event, properties or {}, context or {}, categories, "$", has_gpc=has_gpc)
    assert len({each.subject_of for each in found}) == len(found)
    return {each.subject_of.removeprefix("purpose/"): each for each in found}


def words(found: dict[str, Stated]) -> dict[str, str]:
    return {about: each.status for about, each in found.items()}


def preferences(**values: Any) -> dict[str, Any]:
    return {"consent": {"categoryPreferences": values}}


@pytest.mark.parametrize(
    "context", [{}, {"consent": None}, {"consent": {}}, {"consentManagement": {"provider": "x"}}]
)
def test_no_object_says_nothing(context: dict[str, Any]) -> None:
    assert said(context) == {}


def test_an_empty_object_says_no_to_every_configured_category() -> None:
    assert words(said(preferences())) == dict.fromkeys(PURPOSES, "denied")
    assert words(said(preferences(), categories=MAPPED)) == {
        "advertising": "denied", "sale": "denied", "analytics": "denied",
    }  # fmt: skip


def test_a_category_that_is_not_named_is_not_decided() -> None:
    found = said(preferences(Analytics=True, Advertising=False, Unheard=True))
    assert words(found) == {"analytics": "granted", "advertising": "denied"}
    assert {each.way for each in found.values()} == {"stamped"}


def test_a_purpose_of_several_categories_needs_a_yes_of_each() -> None:
    both = Categories.of({"a": ("sale",), "b": ("sale",)}, PURPOSES)
    assert words(said(preferences(a=True, b=False), categories=both)) == {"sale": "denied"}
    assert words(said(preferences(a=True, b=True), categories=both)) == {"sale": "granted"}


def test_the_event_made_for_it_is_a_decision_of_the_person() -> None:
    found = said(preferences(Sale=True), event="Segment Consent Preference Updated")
    assert (found["sale"].way, found["sale"].method) == ("stated", "consent_event")


def test_rudderstacks_lists_say_yes_and_no() -> None:
    lists = {"allowedConsentIds": ["C0002"], "deniedConsentIds": ["Marketing", "unheard"]}
    found = said({"consentManagement": lists}, categories=MAPPED)
    assert words(found) == {"analytics": "granted", "advertising": "denied", "sale": "denied"}


def test_global_privacy_control_wins_over_the_call_beside_it() -> None:
    found = said(preferences(Sale=True, Analytics=True), has_gpc=True)
    assert words(found) == {
        "sale": "withdrawn", "advertising": "withdrawn", "analytics": "granted",
    }  # fmt: skip
    assert {found["sale"].method, found["advertising"].method} == {"gpc"}
    assert found["sale"].way == "stated"


@pytest.mark.parametrize(
    ("properties", "topic"),
    [
        ({}, "all"),
        ({"list_id": "weekly"}, "weekly"),
        ({"list_id": 42}, "42"),
        ({"list_id": "weekly", "topic": "offers"}, "offers"),
        ({"list_id": ""}, "all"),
        ({"list_id": "jana@example.com"}, "all"),
        ({"list_id": {"id": 1}}, "all"),
    ],
)
def test_leaving_a_list_by_mail_is_a_subscription_that_ends(
    properties: dict[str, Any], topic: str
) -> None:
    found = said(event="Unsubscribed", properties=properties)
    assert words(found) == {f"email/{topic}": "unsubscribed"}


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"consent": True}, "$.context.consent"),
        ({"consent": {"categoryPreferences": []}}, "$.context.consent.categoryPreferences"),
        (preferences(Jana="yes"), "$.context.consent.categoryPreferences"),
        ({"consentManagement": []}, "$.context.consentManagement"),
        (
            {"consentManagement": {"deniedConsentIds": "all"}},
            "$.context.consentManagement.deniedConsentIds",
        ),
        (
            {"consentManagement": {"allowedConsentIds": [1]}},
            "$.context.consentManagement.allowedConsentIds",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_place(context: dict[str, Any], path: str) -> None:
    with pytest.raises(Found) as refusal:
        said(context)
    assert refusal.value.fault.path == path
    assert "Jana" not in refusal.value.fault.path + refusal.value.fault.expected


def test_a_call_says_how_old_its_person_is_and_who_decided() -> None:
    for told in (
        {"consent": {"categoryPreferences": {"sale": True}, "ageBand": "0-12",
                     "authorisedBy": "guardian"}},
        {"consentManagement": {"allowedConsentIds": ["sale"], "ageBand": "0-12",
                               "authorisedBy": "guardian"}},
    ):  # fmt: skip
        sale = said(told)["sale"]
        assert (sale.age_band, sale.authorised_by) == ("0-12", "guardian")
    assert said(preferences(sale=True))["sale"].age_band is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("ageBand", 12), ("ageBand", "young"), ("authorisedBy", "mum"), ("authorisedBy", ["self"])],
)
def test_an_age_that_cannot_be_read_sets_the_call_aside(name: str, value: object) -> None:
    with pytest.raises(Found) as fault:
        said({"consent": {"categoryPreferences": {"sale": True}, name: value}})
    assert fault.value.fault.path == f"$.context.consent.{name}"
