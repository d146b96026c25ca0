"""Does a message go only where the purpose and the subscription both say so?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rules.send_gate import Refusal, refusal_of
from schemas.subjects import Consent

NOW_MS = 1_000_000


def decided(about: str, status: str, from_ms: int = 1000, to_ms: int | None = None) -> Consent:
    return Consent(about, status, from_ms, to_ms, from_ms)


YES = (decided("purpose/advertising", "granted"), decided("email/newsletter", "subscribed"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), None),
        ((decided("purpose/advertising", "withdrawn", 2000),), "purpose"),
        ((decided("email/newsletter", "unsubscribed", 2000),), "subscription"),
        ((decided("email/all", "unsubscribed", 2000),), "subscription"),
        # One that begins later is known by now: whoever sends tomorrow must not be told yes today.
        ((decided("email/newsletter", "unsubscribed", NOW_MS + 1000),), "subscription"),
        ((decided("email/offers", "unsubscribed", 2000),), None),
        ((decided("sms/newsletter", "unsubscribed", 2000),), None),
        ((decided("purpose/sale", "withdrawn", 2000),), None),
        ((decided("email/newsletter", "unsubscribed", 2000, 3000),), None),
    ],
)
def test_a_refusal_of_either_forbids_it_and_no_other_does(
    more: tuple[Consent, ...], expected: Refusal | None
) -> None:
    assert refusal_of("consent", [[*YES, *more]], "email", "newsletter", NOW_MS) == expected


def test_a_subscription_needs_consent_whatever_the_basis_of_the_purpose_is() -> None:
    assert refusal_of("consent", [[]], "email", "newsletter", NOW_MS) == "purpose"
    assert refusal_of("legitimate_interest", [[]], "email", "newsletter", NOW_MS) == "subscription"
    pending = [decided("email/newsletter", "pending")]
    assert refusal_of("legitimate_interest", [pending], "email", "newsletter", NOW_MS)


@given(
    st.lists(
        st.builds(
            decided,
            st.sampled_from(("purpose/advertising", "email/newsletter", "email/all", "sms/all")),
            st.sampled_from(("granted", "withdrawn", "subscribed", "unsubscribed", "pending")),
            st.integers(0, 2 * NOW_MS),
        )
    ),
    st.sampled_from(("purpose/advertising", "email/newsletter", "email/all")),
)
def test_whoever_refuses_now_gets_no_message_whatever_they_said_before(
    before: list[Consent], about: str
) -> None:
    newest_ms = max((each.valid_from_ms for each in before), default=0)
    refused = decided(about, "withdrawn", newest_ms + 1)
    assert refusal_of("legitimate_interest", [[*before, refused]], "email", "newsletter", NOW_MS)
