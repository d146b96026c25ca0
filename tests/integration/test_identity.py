"""Is a person one under all their identifiers: shown, asked, refused, forgotten, and taken apart?"""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console

from consumers.accesses import Accesses
from consumers.clickhouse_reader import ClickHouseReader
from consumers.identities_api import Identities, LinkBody
from headwater.consent_rebuild import rebuild_overlay
from headwater.identity import ask_identity, show_identity
from runtime.access import Roles
from runtime.clock import now_ms
from runtime.vault import Identifier, Vault
from schemas.codec import SUBJECT
from tests.erasing import House, house
from tests.integration.serving import KEYS
from tests.waiting import eventually


@pytest.fixture(scope="module")
def home(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with (
        house(
            tmp_path_factory.mktemp("house"),
            f"kin-{now_ms()}",
            kafka=kafka,
            redis_url=redis_url,
            clickhouse_url=clickhouse_url,
        ) as made,
        made.roles(),
    ):
        yield made


def post(home: House, path: str, role: str, **body: object) -> dict[str, Any]:
    answer = httpx.post(
        f"{home.http.url}{path}",
        json=body,
        headers={"Authorization": f"Bearer {KEYS[role]}"},
        timeout=30,
    )
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def device(home: House) -> str:
    return f"d-{home.someone()}"


def seen(home: House, anonymous: str, kind: str = "page") -> dict[str, Any]:
    """A call of a device that nobody has logged in on."""
    call = home.call("", kind, anonymousId=anonymous, properties={"campaign_id": "spring"})
    del call["userId"]
    return call


def profile(home: House, subject: str) -> dict[str, Any]:
    answer = home.http.get(f"/v1/profiles/{subject}", "activation")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def identity(home: House, subject: str) -> dict[str, Any]:
    answer = home.http.get(f"/v1/identities/{subject}", "privacy_officer")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def await_events(home: House, subject: str, events: int) -> dict[str, Any]:
    def found() -> dict[str, Any]:
        shown = profile(home, subject)
        assert shown["computed"]["events"] == events
        return shown

    return eventually(found, within_s=30)


def test_a_call_that_names_several_identifiers_makes_them_one_person(home: House) -> None:
    user, web, mail = home.someone(), device(home), f"{home.someone()}@example.org"
    phone = "+420 600 " + home.someone().removeprefix("u").rjust(6, "0")
    home.send(seen(home, web), seen(home, web), seen(home, web, "screen"))
    traits = {"email": mail, "phone": phone, "name": "Ada"}
    home.send(home.call(user, "identify", anonymousId=web, traits=traits), home.order(user))
    whole = await_events(home, f"user:{user}", 5)
    assert whole["computed"]["orders"] == 1 and whole["traits"]["name"] == "Ada"
    for subject in (f"anonymous:{web}", f"email:{mail.upper()}", f"phone:{phone}"):
        assert await_events(home, subject, 5) | {"subject": ""} == whole | {"subject": ""}
    told = identity(home, f"phone:{phone}")
    assert told["stands_for"] == f"user:{user}"
    assert {each["type"] for each in told["identifiers"]} == {"user", "anonymous", "email", "phone"}
    assert {each["cause"] for each in told["standing"]} == {"identify"}
    assert [each["of"] for each in told["standing"]] == [f"user:{user}"] * 3
    assert told["refused"] == told["revoked"] == []
    # A vault that was put back from an older copy hears of it from the log.
    for key in home.redis.scan_iter(f"{home.settings.vault.key_prefix}claim*"):
        home.redis.delete(key)
    assert len(identity(home, f"user:{user}")["identifiers"]) == 1
    rebuild_overlay(home.settings)
    assert identity(home, f"phone:{phone}") == told
    exported = home.http.get(f"/v1/subjects/email:{mail}/export", "privacy_officer").json()
    pids = {each["subject"].partition(":")[0]: each["pid"] for each in exported["known_as"]}
    assert len(pids) == 4 and {each["type"] for each in exported["identifiers"]} == set(pids)
    # What they did on the web belongs to the campaign that the order names, once they are one.
    moved = [each for each in exported["events"] if each["state"] == "events of other campaigns"]
    calls = [each for each in exported["events"] if each not in moved]
    held = [(each["held_under"], each["type"]) for each in calls]
    web_events = [(pids["anonymous"], kind) for kind in ("page", "page", "screen")]
    assert sorted(held) == sorted(
        [*web_events, (pids["user"], "identify"), (pids["user"], "track")]
    )
    assert all(each["stands"] and each["of"] == f"user:{user}" for each in exported["claims"])
    assert len(exported["claims"]) == 3


def test_a_second_user_of_a_device_is_refused_and_shown(home: House) -> None:
    first, second, web = home.someone(), home.someone(), device(home)
    home.send(seen(home, web), home.call(first, "identify", anonymousId=web, traits={}))
    home.send(home.call(second, "identify", anonymousId=web, traits={}), home.order(second))
    assert await_events(home, f"user:{first}", 2)["computed"]["orders"] == 0
    assert await_events(home, f"user:{second}", 2)["computed"]["orders"] == 1
    for user in (first, second):
        (refused,) = identity(home, f"user:{user}")["refused"]
        assert (refused["identifier"], refused["of"]) == (f"anonymous:{web}", f"user:{second}")
    claims = home.http.get(f"/v1/subjects/user:{first}/export", "privacy_officer").json()["claims"]
    # Of the other person nothing is told.
    assert {(each["of"], each["stands"]) for each in claims} == {
        (f"user:{first}", True),
        ("somebody else", False),
    }
    # By hand it is decided otherwise, and otherwise again.
    asked = {"subject": f"anonymous:{web}", "action": "link", "reason": "wrong_claim"}
    assert post(home, "/v1/identities/links", "privacy_officer", of=f"user:{second}", **asked)[
        "one_person"
    ]
    await_events(home, f"user:{second}", 3)
    await_events(home, f"user:{first}", 1)
    http = home.settings.http.model_copy(update={"port": int(home.http.url.rpartition(":")[2])})
    settings = home.settings.model_copy(update={"http": http})
    found = ask_identity(settings, f"anonymous:{web}", link=None, revoke=f"user:{second}")
    console = Console(record=True, width=200)
    show_identity(found, console)
    said = console.export_text()
    assert f"anonymous:{web} and user:{second} are two persons" in said
    # What calls said before counts again: the first who used the device.
    assert f"anonymous:{web} is one person with user:{first}" in said
    assert "revoked claims" in said
    assert identity(home, f"user:{second}")["standing"] == []
    await_events(home, f"user:{first}", 2)


def test_what_is_refused_under_one_identifier_is_refused_under_all(home: House) -> None:
    user, web = home.someone(), device(home)
    home.send(seen(home, web), home.call(user, "identify", anonymousId=web, traits={}))
    await_events(home, f"user:{user}", 2)
    for by, other in ((f"user:{user}", f"anonymous:{web}"), (f"anonymous:{web}", f"user:{user}")):
        before = profile(home, f"user:{user}")["computed"]["events"]
        said = {"purpose": "analytics", "source": "test"}
        taken = post(home, "/v1/consents", "consent_desk", subject=by, status="withdrawn", **said)
        home.send(seen(home, web), home.opened(user))
        asked = home.http.get(f"/v1/consents/{other}", "consent_desk").json()
        (analytics,) = (each for each in asked["purposes"] if each["purpose"] == "analytics")
        assert not analytics["allowed"] and analytics["recorded_at"] == taken["recorded_at"]
        on_it = [each for each in asked["history"] if each["recorded_at"] == taken["recorded_at"]]
        assert len(on_it) == 1, "one decision, although each identifier has a record of it"
        proof = {"method": "form", "text_version": "1"}
        post(
            home,
            "/v1/consents",
            "consent_desk",
            subject=other,
            status="granted",
            proof=proof,
            **said,
        )
        home.send(home.order(user))
        # Of the three calls since the withdrawal only the one after the grant counts.
        await_events(home, f"user:{user}", before + 1)


def test_erasing_one_identifier_erases_the_person_and_proves_it(home: House) -> None:
    user, web, mail = home.someone(), device(home), f"{home.someone()}@example.org"
    subjects: list[Identifier] = [("user", user), ("anonymous", web), ("email", mail)]
    home.send(seen(home, web))
    home.send(home.call(user, "identify", anonymousId=web, traits={"email": mail}))
    await_events(home, f"user:{user}", 2)
    pids = {person.pid.hex() for each in subjects if (person := home.vault.lookup(*each))}
    asked = {"subject": f"anonymous:{web}", "reason": "withdrawn"}
    erasure_id = post(home, "/v1/erasures", "privacy_officer", **asked)["erasure_id"]
    for id_type, value in subjects:
        assert home.vault.lookup(id_type, value) is None
        again = {"subject": f"{id_type}:{value}", "reason": "withdrawn"}
        assert post(home, "/v1/erasures", "privacy_officer", **again)["erasure_id"] == erasure_id
    state = home.await_status(erasure_id)
    assert state["together"][0] == erasure_id and len(state["together"]) == 3
    certified = set()
    for each in state["together"]:
        signed = home.await_status(each)["certificate"]["certificate"]
        certified.add(signed["subject_hmac"])
        assert signed["status"] == "provisional"
    assert certified == {home.vault.hash_of(*each) for each in subjects}
    for id_type, value in subjects:
        assert home.http.get(f"/v1/profiles/{id_type}:{value}").status_code == 404
        assert home.http.get(f"/v1/identities/{id_type}:{value}").status_code == 404
    held = f"{home.settings.vault.key_prefix}claim"
    assert not [key for key in home.redis.scan_iter(f"{held}*") if key.decode()[-32:] in pids]


def test_a_claim_in_vain_goes_with_whoever_is_erased(home: House) -> None:
    first, second, web = home.someone(), home.someone(), device(home)
    home.send(seen(home, web), home.call(first, "identify", anonymousId=web, traits={}))
    home.send(home.call(second, "identify", anonymousId=web, traits={}))
    await_events(home, f"user:{first}", 2)
    await_events(home, f"user:{second}", 1)
    home.await_status(home.erased(second))
    asked = {"subject": f"anonymous:{web}", "of": f"user:{first}", "action": "revoke"}
    post(home, "/v1/identities/links", "privacy_officer", **asked)
    await_events(home, f"user:{first}", 1)
    home.send(seen(home, web))
    # It is nobody's now: neither the second user's, nor erased with them.
    assert await_events(home, f"anonymous:{web}", 2)["subject"] == f"anonymous:{web}"
    told = identity(home, f"anonymous:{web}")
    assert told["stands_for"] == f"anonymous:{web}" and told["standing"] == []
    (root,) = (each for each in [home.vault.lookup("anonymous", web)] if each is not None)
    stored = home.redis.hget(home.settings.redis.key_prefix + root.pid.hex(), "p")
    assert isinstance(stored, bytes)
    assert SUBJECT.decode(stored).moved_to is None


def test_the_last_decision_by_hand_counts_whatever_the_clocks_say(home: House) -> None:
    """Of two machines one clock is behind the other; that of a demo stands still."""
    user, web = home.someone(), device(home)
    home.send(home.call(user, "identify", anonymousId=web, traits={}))
    times = iter([5_000, 5_000, 4_000, 4_000, 9_000, 1])

    async def decide() -> list[bool]:
        reader = ClickHouseReader(home.settings.clickhouse)
        made = Identities(
            home.settings,
            Vault.from_settings(home.settings),
            Accesses(reader),
            clock=lambda: next(times),
        )
        await made.start()
        found = []
        for action in ("link", "revoke", "link", "revoke", "revoke", "link"):
            asked = {"subject": f"user:{user}", "of": f"anonymous:{web}", "action": action}
            named: tuple[Identifier, Identifier] = ("user", user), ("anonymous", web)
            roles: Roles = frozenset(["privacy_officer"])
            linked = await made.decide(*named, LinkBody.model_validate(asked), roles)
            assert linked is not None
            found.append(linked.one_person)
        await made.close()
        await reader.close()
        return found

    assert asyncio.run(decide()) == [True, False, True, False, False, True]


def two_who_opened(home: House, campaign: str) -> tuple[str, str]:
    """A user and a device that opened the same mail; the device looked at a page too."""
    user, web = home.someone(), device(home)
    on_web = {**home.opened(user, campaign), "anonymousId": web}
    del on_web["userId"]
    view = {**seen(home, web), "properties": {"campaign_id": campaign}}
    # In the same minute, whenever the test runs: a series shows each minute by itself.
    both = {"timestamp": on_web["timestamp"]}
    home.send(home.opened(user, campaign) | both, on_web, view)
    return user, web


def await_people(home: House, campaign: str, unique_opened: int, visitors: int = 1) -> None:
    wanted = {"opened": 2, "unique_opened": unique_opened, "visitors": visitors}

    def found() -> bool:
        shown = home.campaign(campaign)
        assert {name: shown.get(name) for name in wanted} == wanted
        assert home.series("unique_opened", campaign)[-1][1] == unique_opened
        return True

    eventually(found, within_s=60)


def test_counts_of_people_follow_a_merge_and_its_revocation(home: House) -> None:
    user, web = two_who_opened(home, "merged")
    await_people(home, "merged", 2)
    home.send(home.call(user, "identify", anonymousId=web, traits={}))
    await_people(home, "merged", 1)
    asked = {"subject": f"anonymous:{web}", "of": f"user:{user}"}
    post(home, "/v1/identities/links", "privacy_officer", action="revoke", **asked)
    # The user, too, is a visitor by now: the identify call belongs to the mail that touched them last.
    await_people(home, "merged", 2, visitors=2)
    assert home.verdict().is_verified


def test_counts_of_people_stay_when_a_person_of_two_pids_is_erased(home: House) -> None:
    user, web = two_who_opened(home, "forgotten")
    home.send(home.call(user, "identify", anonymousId=web, traits={}))
    await_people(home, "forgotten", 1)
    on_web = home.vault.lookup("anonymous", web)
    assert on_web is not None
    pids = [home.pid_of(user), on_web.pid]
    listed = ",".join(f"unhex('{pid.hex()}')" for pid in pids)
    links = f"SELECT count() FROM links WHERE root IN ({listed}) OR member IN ({listed})"
    assert home.clickhouse.query(links).result_rows == [(1,)]
    home.await_status(home.erased(user))

    def is_gone() -> bool:
        assert [home.facts_of(pid) for pid in pids] == [0, 0]
        assert home.clickhouse.query(links).result_rows == [(0,)]
        return True

    eventually(is_gone, within_s=60)
    await_people(home, "forgotten", 1)
    assert home.verdict().is_verified
