"""How does a person at the command line have somebody forgotten, and check the proof later?

Asking goes through the API, as everybody's does. Checking a certificate does not: it looks into
every store itself, with the same code as the role `erasure`, and needs the same key files.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.erasures.api import read_together, state_of
from consumers.erasures.erasures_to_certificates import Desk
from consumers.rules.erasure import REASONS, is_empty
from headwater.caller import Caller, url_of
from runtime.clock import ClockMs, now_ms
from runtime.settings import Role, Settings
from schemas.errors import SettingInvalid, StoreRefused

ROLE: Role = "privacy_officer"
ASK_EVERY_S = 0.3
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """How far an erasure is, as `GET /v1/erasures/{id}` tells it, and whether that is well.

    `check` says what a check of its certificate found; None if there was none.
    """

    state: Mapping[str, Any]
    is_well: bool
    check: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self.state, **({} if self.check is None else {"check": dict(self.check)})}


def run_erase(
    settings: Settings,
    subject: str,
    reason: str,
    *,
    within_s: float,
    say: Say,
    pause: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask that `subject` be forgotten, and wait until every store was looked into and is empty.

    Well if it is within `within_s`; it goes on in any case. Raises SettingInvalid for a reason that
    is none, StoreRefused when nobody is known by the subject, StoreUnavailable as Caller does.
    """
    if reason not in REASONS:
        raise SettingInvalid(f"--reason {reason}: expected one of {', '.join(REASONS)}")
    caller = Caller(url_of(settings.http), settings.http.keys)
    try:
        begun = caller.post("/v1/erasures", ROLE, {"subject": subject, "reason": reason})
        erasure_id = str(begun["erasure_id"])
        say(f"erasure {erasure_id}: nothing new is taken in, the data key is destroyed")
        until_s = time.monotonic() + within_s
        shown: set[tuple[str, str]] = set()
        while True:
            state = caller.get(f"/v1/erasures/{erasure_id}", ROLE)
            _say_empty(state, shown, say)
            if state["status"] != "running":
                _say_rest(state, say)
                return Answer(state, is_well=True)
            if time.monotonic() > until_s:
                _say_left(state, say)
                return Answer(state, is_well=False)
            pause(ASK_EVERY_S)
    finally:
        caller.close()


def run_verify(settings: Settings, erasure_id: str, *, say: Say, clock: ClockMs = now_ms) -> Answer:
    """Check the certificate of an erasure and look into every store again, now.

    It becomes final by that if all horizons have passed. Well if the certificate is ours, nobody
    changed the chain, and nothing is left in any store. Raises StoreRefused for an unknown erasure,
    StoreUnavailable when a store does not answer.
    """
    with Desk(settings, clock) as desk:
        if not _ID.fullmatch(erasure_id):
            raise StoreRefused("no erasure has this id; expected 32 hexadecimal digits")
        (kept,) = desk.store.read([erasure_id])
        desk.look((kept.together if kept is not None else ()) or [erasure_id])
        kept = read_together(desk.store, erasure_id)
        if kept is None:
            raise StoreRefused(f"no erasure has the id {erasure_id}")
        certificate = None
        check: dict[str, Any] = {"signature": "none yet", "broken_links": []}
        checked = None
        if kept.erasure is not None and kept.erasure.certificate:
            number = kept.erasure.certificate
            certificate = next(iter(desk.store.chain(number, number)), None)
            checked = desk.certifier.check(number, erasure_id)
            check = {
                "signature": "ours" if checked.is_ours else "not ours, or changed",
                "broken_links": list(checked.broken),
            }
    state = state_of(erasure_id, kept, certificate).model_dump()
    is_clean = kept.erasure is not None and is_empty(kept.erasure.looks)
    say(f"erasure {erasure_id}: {state['status']}")
    links = ", ".join(map(str, checked.broken)) if checked is not None else ""
    chain = f"chain broken at {links}" if links else "chain unbroken"
    say(f"certificate: signature {check['signature']}, {chain}")
    _say_empty(state, set(), say)
    _say_left(state, say)
    _say_rest(state, say)
    return Answer(state, is_well=checked is not None and checked.is_good and is_clean, check=check)


def _say_empty(state: Mapping[str, Any], shown: set[tuple[str, str]], say: Say) -> None:
    for look in state["stores"]:
        place = (look["store"], look["looked_for"])
        if look["remaining"] == 0 and place not in shown:
            shown.add(place)
            say(f"  {look['store']}: nothing left of {look['looked_for']} ({look['how']})")


def _say_left(state: Mapping[str, Any], say: Say) -> None:
    for look in state["stores"]:
        if look["remaining"]:
            say(f"  {look['store']}: {look['remaining']} left of {look['looked_for']}")


def _say_rest(state: Mapping[str, Any], say: Say) -> None:
    for wait in state["pending"]:
        say(f"  pending until {wait['until']}: {wait['what']}")
    certificate = state["certificate"]
    if certificate is not None:
        say(f"{state['status']}: certificate {certificate['certificate']['number']}, signed")
