"""May this person say yes alone, or does it need a parent?

A child's own consent does not count where it is below the age of consent: 16 years, or what the
country set down to 13 (GDPR Art. 8(1)); then whoever holds parental responsibility gives it. So a
yes that says how old its person is (an age band) and was not authorised by a guardian is as if it
had never been given. A no always counts (Art. 7(3)): nobody needs a parent to withdraw.

A record tells the age of consent that was applied to it, so that it means the same for ever,
whatever is configured later and whoever reads it.
"""

import re
from dataclasses import dataclass

from schemas.requests import ConsentChanged

SELF, GUARDIAN = "self", "guardian"
AUTHORISERS = (SELF, GUARDIAN)
"""Who decided: the person, or whoever holds parental responsibility for them."""
AGE_OF_CONSENT = 16
"""In years, where a country set no other (GDPR Art. 8(1))."""
EXPECTED_BAND = "an age band in years, such as 0-12, 13-15, 16-17 or 18+"

_NEEDS_AUTHORITY = frozenset({"granted", "subscribed", "pending"})
_BAND = re.compile(r"(0|[1-9]\d?)(?:-([1-9]?\d)|\+)")
_COUNTRY = re.compile(r"[A-Za-z]{2}(?![A-Za-z])")
_YEAR_MS = 31_556_952_000  # 365.2425 days


@dataclass(frozen=True, slots=True)
class Age:
    """So old somebody was at least at a time, under the law of a country (ISO 3166) if known."""

    at_least: int
    as_of_ms: int
    country: str | None = None

    def at(self, at_ms: int) -> int:
        """How old they are at least at `at_ms`, in whole years; before `as_of_ms` it is less."""
        return max(0, self.at_least + (at_ms - self.as_of_ms) // _YEAR_MS)


def youngest_of(age_band: str) -> int | None:
    """The lower end of '13-15' or '18+', in years; None of anything else."""
    found = _BAND.fullmatch(age_band)
    if found is None or (found[2] is not None and int(found[2]) < int(found[1])):
        return None
    return int(found[1])


def country_of(jurisdiction: str | None) -> str | None:
    """'DE' of 'DE' and of 'de-BY'; None where no country is named (ISO 3166)."""
    found = _COUNTRY.match(jurisdiction or "")
    return found[0].upper() if found is not None else None


def lacks_guardian(
    status: str, authorised_by: str | None, at_least: int, age_of_consent: int
) -> bool:
    """True of a yes (also one that is to be confirmed) by a person who may be too young for it.

    A band that reaches below the age of consent counts as below.
    """
    return status in _NEEDS_AUTHORITY and authorised_by != GUARDIAN and at_least < age_of_consent


def is_void(change: ConsentChanged) -> bool:
    """True of a record that is as if it had never been made: a child's own yes."""
    if change.age_band is None:
        return False
    limit = AGE_OF_CONSENT if change.age_of_consent is None else change.age_of_consent
    # A band that we cannot read may be a child's.
    return lacks_guardian(
        change.status, change.authorised_by, youngest_of(change.age_band) or 0, limit
    )


def age_of_change(change: ConsentChanged) -> Age | None:
    """What a record tells of its person's age."""
    at_least = None if change.age_band is None else youngest_of(change.age_band)
    if at_least is None:
        return None
    as_of_ms = min(change.valid_from_ms, change.recorded_at_ms)
    return Age(at_least, as_of_ms, country_of(change.jurisdiction))
