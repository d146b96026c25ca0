"""When does a yes need a parent's, and what is it without?"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.rules.consent_views import consent_of
from runtime.settings import Consent as ConsentSettings
from schemas.codec import CONSENT_CHANGED
from schemas.consent import allowed_now
from schemas.decisions import Decision, Proof, content_of, known_of_change, news_of
from schemas.minors import (
    Age,
    age_of_change,
    country_of,
    is_void,
    lacks_guardian,
    youngest_of,
)
from schemas.requests import ConsentChanged

PID = bytes(range(16))
DAY_MS = 86_400_000
BANDS = ("0-12", "13-15", "16-17", "18+", "0+")

changes = st.builds(
    ConsentChanged,
    record_id=st.binary(min_size=16, max_size=16),
    pid=st.just(PID),
    purpose=st.just("sale"),
    channel=st.none(),
    topic=st.none(),
    legal_basis=st.just("consent"),
    status=st.sampled_from(["granted", "subscribed", "pending", "denied", "withdrawn", "new word"]),
    valid_from_ms=st.integers(0, 9),
    valid_to_ms=st.none(),
    recorded_at_ms=st.integers(0, 9),
    source=st.just("form"),
    age_band=st.none() | st.sampled_from([*BANDS, "a child"]),
    authorised_by=st.sampled_from([None, "self", "guardian"]),
    age_of_consent=st.none() | st.integers(13, 18),
)


@pytest.mark.parametrize(
    ("band", "youngest"),
    [("0-12", 0), ("13-15", 13), ("18+", 18), ("0+", 0), ("7-7", 7), ("99+", 99)],
)
def test_a_band_is_as_young_as_its_lower_end(band: str, youngest: int) -> None:
    assert youngest_of(band) == youngest


@pytest.mark.parametrize("band", ["", "13", "15-13", "-13", "13-", "013-15", "minor", "1-100"])
def test_anything_else_is_no_band(band: str) -> None:
    assert youngest_of(band) is None


@pytest.mark.parametrize(
    ("jurisdiction", "country"),
    [("CZ", "CZ"), ("de-BY", "DE"), ("USA", None), (None, None), ("", None), ("the EU", None)],
)
def test_a_jurisdiction_names_a_country(jurisdiction: str | None, country: str | None) -> None:
    assert country_of(jurisdiction) == country


def test_the_law_of_the_country_says_from_which_age_on() -> None:
    ages = ConsentSettings(ages={"CZ": 15, "ES": 14})
    assert [ages.age_in(country) for country in ("CZ", "ES", "DE", None)] == [15, 14, 16, 16]
    assert lacks_guardian("granted", "self", 15, ages.age_in("DE"))
    assert not lacks_guardian("granted", "self", 15, ages.age_in("CZ"))


@pytest.mark.parametrize("ages", [{"CZ": 12}, {"CZ": 19}, {"Czechia": 15}, {"cz": 15}])
def test_no_law_lets_younger_children_consent(ages: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ConsentSettings(ages=ages)


def test_children_grow_older_by_whole_years() -> None:
    age = Age(13, 0)
    assert [age.at(days * DAY_MS) for days in (-1, 0, 365, 366, 731)] == [12, 13, 13, 14, 15]
    assert Age(0, 0).at(-DAY_MS) == 0


@given(changes)
@settings(max_examples=500, deadline=None, derandomize=True)
def test_a_no_a_guardians_yes_and_one_that_tells_no_age_always_count(
    change: ConsentChanged,
) -> None:
    is_yes = change.status in ("granted", "subscribed", "pending")
    if not is_yes or change.authorised_by == "guardian" or change.age_band is None:
        assert not is_void(change)
    else:
        limit = change.age_of_consent or 16
        youngest = {"0-12": 0, "13-15": 13, "16-17": 16, "18+": 18}.get(change.age_band, 0)
        assert is_void(change) == (youngest < limit)


@given(st.lists(changes, max_size=8), st.sampled_from(["consent", "legitimate_interest"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_children_said_alone_changes_no_answer(
    history: list[ConsentChanged], basis: str
) -> None:
    """As if it had never been made, wherever it stands among other decisions."""
    said_alone = [
        each
        for each in history
        if each.status in ("granted", "subscribed", "pending")
        and each.age_band in ("0-12", "0+", "a child")
        and each.authorised_by != "guardian"
    ]
    others = [each for each in history if each not in said_alone]
    for now_ms in range(12):
        answers = {
            allowed_now(
                basis,  # type: ignore[arg-type]
                [consent_of(each) for each in kept if not is_void(each)],
                now_ms,
            )
            for kept in (history, others)
        }
        assert len(answers) == 1


@given(changes)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_record_tells_all_of_it_again(change: ConsentChanged) -> None:
    assert CONSENT_CHANGED.decode(CONSENT_CHANGED.encode(change)) == change
    known = known_of_change(change)
    assert known.is_guardians == (change.authorised_by == "guardian")
    assert known.age == age_of_change(change)


def test_what_was_recorded_before_ages_were_known_keeps_its_id() -> None:
    before = Decision("purpose/analytics", "granted", "form", Proof("form", "7"))
    assert content_of(PID, before).hex() == "9b2dfc270c9632a167f15733cdea501c"
    told = [
        replace(before, proof=replace(before.proof, age_band=band, authorised_by=by))
        for band, by in ((None, None), ("18+", None), (None, "guardian"), ("18+", "guardian"))
    ]
    assert len({content_of(PID, each) for each in told}) == 4


def test_a_record_tells_the_age_of_consent_that_was_applied() -> None:
    for band in (None, "18+"):
        decision = Decision("purpose/sale", "granted", "form", Proof(age_band=band))
        news = news_of(
            PID, decision, (), way="said", legal_basis="consent", now_ms=5, age_of_consent=15
        )
        assert news is not None
        assert news.change.age_of_consent == (None if band is None else 15)
        assert known_of_change(news.change) == news.known
