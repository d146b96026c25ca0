"""A child's own yes is not taken, whichever way it comes; a guardian's yes is, and any no."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from headwater.consent_rebuild import rebuild_overlay
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.consent_overlay import ConsentOverlay
from runtime.processes import free_ports
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.minors import Age
from tests.integration.serving import Served, serving, settings_of
from tests.integration.test_consent_import import csv
from tests.integration.test_consent_import import run as run_import
from tests.integration.test_consent_pages import link, send
from tests.integration.test_consents_api import get, on_log, person, post, run, state

PROVEN = {"method": "form", "text_version": "2026-01"}
GRANT = {"purpose": "sale", "status": "granted", "source": "form"}
PATH = "$.proof.authorised_by"


@pytest.fixture(scope="module")
def served(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("minors")
    made = settings_of(
        directory,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=f"minors-{directory.name}",
    )
    consent = made.consent.model_copy(update={"ages": {"CZ": 15}})
    (port,) = free_ports(1)
    http = made.http.model_copy(update={"port": port})
    made = made.model_copy(update={"consent": consent, "http": http})
    prepare_stores(made)
    with serving(made, port=port) as found:
        yield found
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def grant(served: Served, who: str, **proof: str) -> httpx.Response:
    return post(served, GRANT | {"subject": who, "proof": PROVEN | proof})


def allowed(served: Served, who: str) -> bool:
    return bool(state(get(served, who), "sale")["allowed"])


def known_age(settings: Settings, pid: bytes) -> Age | None:
    async def read() -> Age | None:
        overlay = ConsentOverlay(settings)
        try:
            ((_, age),) = await overlay.read_with_age([pid])
            return age
        finally:
            await overlay.close()

    return asyncio.run(read())


def test_a_childs_own_yes_is_refused_and_told_what_it_needs(
    served: Served, vault: Vault, who: str
) -> None:
    for proof in ({"age_band": "13-15"}, {"age_band": "0-12", "authorised_by": "self"}):
        refused = grant(served, who, **proof)
        assert refused.status_code == 400
        (fault,) = refused.json()["errors"]
        assert fault["path"] == PATH
        assert "guardian" in fault["expected"] and "16" in fault["expected"]
    assert vault.lookup("user", who.removeprefix("user:")) is None

    given = grant(served, who, age_band="0-12", authorised_by="guardian")
    assert given.status_code == 200, given.text
    assert allowed(served, who)
    (record,) = on_log(served.settings, person(vault, who).pid)
    assert (record.age_band, record.authorised_by, record.age_of_consent) == (
        "0-12", "guardian", 16,
    )  # fmt: skip
    proof = get(served, who)["history"][0]["proof"]
    assert (proof["age_band"], proof["authorised_by"], proof["age_of_consent"]) == (
        "0-12", "guardian", 16,
    )  # fmt: skip


def test_a_no_needs_no_guardian(served: Served, who: str) -> None:
    grant(served, who, age_band="0-12", authorised_by="guardian")
    body = {"subject": who, "purpose": "sale", "status": "withdrawn"}
    assert post(served, body | {"proof": {"age_band": "0-12"}}).status_code == 200
    assert not allowed(served, who)


def test_the_country_of_the_proof_says_from_which_age_on(
    served: Served, vault: Vault, who: str
) -> None:
    assert grant(served, who, age_band="15-17", jurisdiction="DE").status_code == 400
    assert grant(served, who, age_band="14-17", jurisdiction="CZ").status_code == 400
    assert grant(served, who, age_band="15-17", jurisdiction="CZ").status_code == 200
    (record,) = on_log(served.settings, person(vault, who).pid)
    assert record.age_of_consent == 15


@pytest.mark.parametrize("proof", [{"age_band": "young"}, {"authorised_by": "nobody"}])
def test_what_is_no_age_band_is_refused(served: Served, who: str, proof: dict[str, str]) -> None:
    refused = grant(served, who, **proof)
    assert refused.status_code == 400
    (fault,) = refused.json()["errors"]
    assert fault["path"] == f"$.proof.{next(iter(proof))}"


def test_whoever_is_known_to_be_a_child_needs_a_guardian_wherever_they_say_yes(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    """On the preference page too, and after the overlay was made again from the log."""
    grant(served, who, age_band="0-12", authorised_by="guardian", jurisdiction="CZ")
    pid = person(vault, who).pid
    age = known_age(served.settings, pid)
    assert age is not None and (age.at_least, age.country) == (0, "CZ")

    refused = post(served, GRANT | {"subject": who, "purpose": "advertising", "proof": PROVEN})
    assert refused.status_code == 400
    assert "15" in refused.json()["errors"][0]["expected"]
    shown = send(link(served, who)["url"], **{"purpose/advertising": "yes", "purpose/sale": "no"})
    assert "a parent or guardian has to say it" in shown.text
    found = get(served, who)
    assert not state(found, "advertising")["allowed"] and not state(found, "sale")["allowed"]
    assert len(found["history"]) == 2

    redis_client.delete(f"{served.settings.vault.key_prefix}consent:{pid.hex()}")
    rebuild_overlay(served.settings)
    assert known_age(served.settings, pid) == age


def test_a_child_grows_up(served: Served, who: str) -> None:
    long_ago = {"valid_from": "2016-01-01T00:00:00Z"}
    proof = PROVEN | {"age_band": "13-15", "authorised_by": "guardian"}
    post(served, GRANT | long_ago | {"subject": who, "proof": proof})
    post(served, {"subject": who, "purpose": "sale", "status": "withdrawn"})
    assert grant(served, who).status_code == 200
    assert allowed(served, who)


def test_a_subscription_that_a_guardian_asked_for_is_confirmed_by_them(
    served: Served, who: str
) -> None:
    body = {"subject": who, "channel": "email", "topic": "news", "status": "pending"}
    young = {"age_band": "0-12"}
    assert post(served, body | {"proof": young}).status_code == 400
    told = post(served, body | {"proof": young | {"authorised_by": "guardian"}}).json()
    assert send(told["confirm"]["url"]).status_code == 200
    found = get(served, who)
    assert found["subscriptions"][0]["allowed"] is True
    assert found["history"][-1]["proof"]["authorised_by"] == "guardian"


def test_a_confirmation_by_somebody_who_turned_out_to_be_a_child_is_refused(
    served: Served, who: str
) -> None:
    body = {"subject": who, "channel": "email", "topic": "news", "status": "pending"}
    url = post(served, body).json()["confirm"]["url"]
    post(
        served,
        {"subject": who, "purpose": "sale", "status": "denied", "proof": {"age_band": "0-12"}},
    )
    answer = send(url)
    assert (answer.status_code, "parent" in answer.text) == (403, True)
    assert get(served, who)["subscriptions"][0]["allowed"] is False


def test_an_imported_row_of_a_child_is_refused_alone(
    served: Served, fresh_name: Any, tmp_path: Path
) -> None:
    post(served, {"subject": "user:first", "purpose": "sale", "status": "denied"})
    names = [f"{fresh_name('child')}@example.com" for _ in range(3)]
    header = "email,channel,topic,status,time,source,method,text_version,age_band,authorised_by"
    common = "email,news,subscribed,2025-03-01T09:00:00Z,Vendor,form,2025-02"
    file = csv(tmp_path)
    rows = [f"{names[0]},{common},0-12,", f"{names[1]},{common},0-12,guardian",
            f"{names[2]},{common},18+,self"]  # fmt: skip
    file.write_text("\n".join([header, *rows]) + "\n")
    result = run_import(served, file, "--json")
    told = json.loads(result.stdout)
    assert (told["recorded"], told["unchanged"], told["refused"]) == (2, 0, 1), result.output
    (refused,) = told["refused_rows"]
    assert refused["row"] == 1 and PATH in refused["errors"][0]
    assert result.exit_code == 1


def test_the_terminal_takes_it_too(served: Served, who: str, tmp_path: Path) -> None:
    arguments = ["set", who, "--purpose", "sale", "--status", "granted", "--method", "phone",
                 "--text-version", "3", "--age-band", "13-15"]  # fmt: skip
    assert PATH in str(run(served, tmp_path, *arguments).exception)
    given = run(served, tmp_path, *arguments, "--authorised-by", "guardian")
    assert "In force: granted" in given.output


# -- proof of a yes


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"proof": {"text_version": "3"}}, ["$.proof.method"]),
        ({"proof": {"method": "form"}}, ["$.proof.text_version"]),
        ({}, ["$.proof.method", "$.proof.text_version"]),
    ],
)
def test_a_yes_without_proof_is_refused_and_a_no_never(
    served: Served, who: str, change: dict[str, object], paths: list[str]
) -> None:
    refused = post(served, GRANT | {"subject": who} | change)
    assert refused.status_code == 400
    assert [each["path"] for each in refused.json()["errors"]] == paths
    without_source = {"subject": who, "purpose": "sale", "status": "granted", "proof": PROVEN}
    assert [each["path"] for each in post(served, without_source).json()["errors"]] == ["$.source"]
    for status in ("denied", "withdrawn"):
        bare = {"subject": who, "purpose": "sale", "status": status}
        assert post(served, bare).status_code == 200
