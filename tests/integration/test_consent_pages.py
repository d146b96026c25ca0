"""Can a person decide from a mail: without a login, without a script, and nobody else for them?"""

import asyncio
import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from consumers.rules.consent_pages import confirmation_text, text_hash, text_of
from consumers.rules.consent_words import LANGUAGES, VERSION
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.consent_links import Links, unsubscribe_headers
from runtime.processes import free_ports
from runtime.settings import Settings
from runtime.vault import Vault
from tests.browser import browsing
from tests.integration.serving import Served, serving, settings_of
from tests.integration.test_consents_api import PROVEN, get, on_log, person, post, state

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def served(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("pages")
    made = settings_of(
        directory,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=f"pages-{directory.name}",
    )
    (port,) = free_ports(1)
    made = made.model_copy(update={"http": made.http.model_copy(update={"port": port})})
    prepare_stores(made)
    with serving(made, port=port) as found:
        yield found
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def link(served: Served, who: str, **body: str) -> Any:
    headers = {"Authorization": f"Bearer {served.settings.http.keys['consent_desk']}"}
    body = {"subject": who, "kind": "preferences"} | body
    answer = httpx.post(f"{served.url}/v1/consents/links", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(url: str, **form: str) -> httpx.Response:
    return httpx.post(url, data=form, timeout=30)


def subscription(served: Served, who: str, topic: str) -> Any:
    return next(s for s in get(served, who)["subscriptions"] if s["topic"] == topic)


def subscribe(served: Served, who: str, topic: str, status: str = "subscribed") -> Any:
    body = {"subject": who, "channel": "email", "topic": topic, "status": status}
    answer = post(served, body | PROVEN)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- unsubscribing


def test_one_click_of_a_mail_program_unsubscribes(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    made = link(served, who, kind="unsubscribe", channel="email", topic="news")
    assert made["headers"] == {
        "List-Unsubscribe": f"<{made['url']}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    answer = httpx.post(
        made["url"],
        content=b"List-Unsubscribe=One-Click",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200
    assert subscription(served, who, "news")["allowed"] is False
    assert get(served, who)["history"][-1]["proof"]["method"] == "one_click"
    assert send(made["url"], **{"List-Unsubscribe": "One-Click"}).status_code == 200
    assert len(get(served, who)["history"]) == 2


def test_opening_a_link_changes_nothing(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    links = [
        link(served, who, kind="unsubscribe", channel="email", topic="news")["url"],
        link(served, who)["url"],
        subscribe(served, who, "offers", "pending")["confirm"]["url"],
    ]
    before = get(served, who)["history"]
    for url in links:
        for method in ("GET", "HEAD"):
            answer = httpx.request(method, url)
            assert answer.status_code in (200, 405)
    assert get(served, who)["history"] == before
    assert subscription(served, who, "offers")["allowed"] is False


def test_a_link_for_all_topics_is_the_default(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    send(link(served, who, kind="unsubscribe", channel="email")["url"])
    assert subscription(served, who, "news")["allowed"] is False


def test_an_erased_persons_link_is_answered_like_any_and_writes_nothing(
    served: Served, vault: Vault, who: str
) -> None:
    subscribe(served, who, "news")
    unsubscribe = link(served, who, kind="unsubscribe", channel="email", topic="news")["url"]
    preferences = link(served, who)["url"]
    pid = person(vault, who).pid
    vault.suppress("user", who.removeprefix("user:"), 5)
    assert send(unsubscribe).status_code == 200
    assert send(preferences, stop="all").status_code == 200
    assert len(on_log(served.settings, pid)) == 1


# -- whose link it is


def test_a_link_that_is_changed_expired_or_for_something_else_opens_nothing(
    served: Served, vault: Vault, who: str
) -> None:
    subscribe(served, who, "news")
    url = link(served, who)["url"]
    token = url.rsplit("/", 1)[1]
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[3] ^= 1
    forged = base64.urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
    pid = person(vault, who).pid
    old = Links.from_settings(served.settings).preferences(pid, 1_600_000_000_000).url
    unsubscribing = link(served, who, kind="unsubscribe", channel="email")["url"].rsplit("/", 1)[1]
    bad = [
        old,
        f"{served.url}/consent/preferences/{forged}",
        f"{served.url}/consent/preferences/{token[:-2]}",
        f"{served.url}/consent/preferences/é",
        f"{served.url}/consent/preferences/{unsubscribing}",
        f"{served.url}/consent/unsubscribe/{token}",
        f"{served.url}/consent/confirm/{token}",
    ]
    before = get(served, who)["history"]
    for answer in [ask(each) for each in bad for ask in (httpx.get, send)]:
        assert answer.status_code == 410
        assert "not valid any more" in answer.text
    assert get(served, who)["history"] == before


def test_every_bit_of_a_link_is_signed(settings: Settings) -> None:
    links = Links.from_settings(settings)
    token = links.unsubscribe(bytes(16), "email", "news", 0).url.rsplit("/", 1)[1]
    read = links.read("unsubscribe", token)
    assert read is not None and read.matter == "email/news"
    assert read.expires_at_ms == settings.consent.unsubscribe_link_days * DAY_MS
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert links.read("unsubscribe", base64.urlsafe_b64encode(changed).decode()) is None


def test_a_link_holds_no_identifier_and_begins_as_configured(settings: Settings) -> None:
    consent = settings.consent.model_copy(update={"public_url": "https://cdp.example.org/"})
    public = settings.model_copy(update={"consent": consent})
    made = Links.from_settings(public).unsubscribe(bytes(16), "email", "news", 0)
    assert made.url.startswith("https://cdp.example.org/consent/unsubscribe/")
    assert unsubscribe_headers(made)["List-Unsubscribe"] == f"<{made.url}>"


@pytest.fixture
def settings(served: Served) -> Settings:
    return served.settings


# -- double opt-in


def test_a_subscription_is_pending_until_it_is_confirmed_once(served: Served, who: str) -> None:
    told = subscribe(served, who, "news", "pending")
    assert subscription(served, who, "news")["allowed"] is False
    url = told["confirm"]["url"]
    assert "Confirm" in httpx.get(url).text
    assert send(url).status_code == 200
    assert subscription(served, who, "news")["allowed"] is True
    assert send(url).status_code == 410
    assert get(served, who)["history"][-1]["proof"]["method"] == "double_opt_in"
    assert "confirm" not in subscribe(served, who, "news", "pending")
    assert subscription(served, who, "news")["allowed"] is True


def test_a_confirmation_does_not_undo_what_was_decided_after_it_was_sent(
    served: Served, who: str
) -> None:
    url = subscribe(served, who, "news", "pending")["confirm"]["url"]
    subscribe(served, who, "news", "unsubscribed")
    assert send(url).status_code == 410
    assert subscription(served, who, "news")["allowed"] is False


def test_asking_twice_gives_one_record_and_one_link(served: Served, who: str) -> None:
    first, again = (subscribe(served, who, "news", "pending") for _ in range(2))
    assert first["record_id"] == again["record_id"]
    assert send(again["confirm"]["url"]).status_code == 200
    assert send(first["confirm"]["url"]).status_code == 410


def test_two_clicks_at_once_are_one_confirmation(served: Served, who: str) -> None:
    url = subscribe(served, who, "news", "pending")["confirm"]["url"]

    async def click() -> list[int]:
        async with httpx.AsyncClient(timeout=30) as client:
            answers = await asyncio.gather(*(client.post(url) for _ in range(5)))
            return [answer.status_code for answer in answers]

    assert set(asyncio.run(click())) <= {200, 410}
    assert [each["status"] for each in get(served, who)["history"]] == ["pending", "subscribed"]


def test_a_confirmation_is_worth_nothing_after_a_day(
    served: Served, vault: Vault, who: str
) -> None:
    told = subscribe(served, who, "news", "pending")
    token = told["confirm"]["url"].rsplit("/", 1)[1]
    read = Links.from_settings(served.settings).read("confirm", token)
    assert read is not None
    yesterday = read.expires_at_ms - 2 * DAY_MS
    late = Links.from_settings(served.settings).confirm(
        read.pid, read.matter, read.record_id, yesterday
    )
    assert late.expires_at_ms == read.expires_at_ms - DAY_MS
    assert send(late.url).status_code == 410
    assert subscription(served, who, "news")["allowed"] is False
    assert replace(read, expires_at_ms=0).record_id.hex() == told["record_id"]


# -- the preference page


def test_a_person_sees_and_changes_their_choices(served: Served, vault: Vault, who: str) -> None:
    subscribe(served, who, "news")
    url = link(served, who)["url"]
    shown = httpx.get(url)
    assert shown.status_code == 200
    fields = dict(re.findall(r'name="([^"]+)" value="(\w+)" checked', shown.text))
    assert fields == {
        "purpose/advertising": "no",
        "purpose/analytics": "yes",
        "purpose/personalisation": "yes",
        "purpose/sale": "no",
        "email/news": "yes",
    }
    saved = send(url, **(fields | {"purpose/analytics": "no", "purpose/advertising": "yes"}))
    assert "Saved" in saved.text
    found = get(served, who)
    assert {p["purpose"]: p["allowed"] for p in found["purposes"]} == {
        "advertising": True, "analytics": False, "personalisation": True, "sale": False,
    }  # fmt: skip
    changed = {each.purpose: each for each in on_log(served.settings, person(vault, who).pid)}
    assert set(changed) == {None, "advertising", "analytics"}
    proof = changed["analytics"]
    matters = [
        f"purpose/{name}" for name in ("advertising", "analytics", "personalisation", "sale")
    ]
    assert proof.text_hash == text_hash(text_of([*matters, "email/news"], LANGUAGES["en"]))
    assert (proof.method, proof.language) == ("preference_page", "en")


def test_a_form_that_says_what_holds_writes_nothing(served: Served, who: str) -> None:
    url = link(served, who)["url"]
    send(url, **{"purpose/analytics": "yes", "purpose/sale": "no", "purpose/unheard": "yes"})
    assert get(served, who)["history"] == []


def test_one_button_says_no_to_everything(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    send(link(served, who)["url"], **{"purpose/analytics": "yes", "stop": "all"})
    found = get(served, who)
    assert [each["allowed"] for each in found["purposes"]] == [False] * 4
    assert [each["allowed"] for each in found["subscriptions"]] == [False, False]
    assert state(found, "sale")["status"] == "withdrawn"


def test_pages_keep_to_themselves_and_need_no_script(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    pages = [
        httpx.get(link(served, who)["url"]),
        httpx.get(link(served, who, kind="unsubscribe", channel="email", topic="news")["url"]),
        httpx.get(subscribe(served, who, "offers", "pending")["confirm"]["url"]),
    ]
    for page in pages:
        assert "<script" not in page.text
        assert not re.search(r"(?:src|href|action)=\"(?!data:,)", page.text)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"
        assert 'lang="en"' in page.text and "<h1>" in page.text and "<title>" in page.text
        labels = re.findall(r"<label><input [^>]+> (\w+)</label>", page.text)
        assert len(labels) == page.text.count('<input type="radio"')
        assert page.text.count("<fieldset>") == page.text.count("<legend>")


def test_a_name_that_looks_like_markup_is_shown_as_text(
    served: Served, who: str, settings: Settings
) -> None:
    purposes = settings.purposes | {'<b>"x"</b>': settings.purposes["sale"]}
    odd = settings.model_copy(update={"purposes": purposes})
    url = link(served, who)["url"]
    with serving(odd) as other:
        page = httpx.get(url.replace(served.url, other.url)).text
    assert "<b>" not in page and "&lt;b&gt;" in page


@pytest.mark.browser
def test_the_page_works_in_a_browser(served: Served, who: str) -> None:
    subscribe(served, who, "news")
    url = link(served, who)["url"]

    async def visit() -> tuple[list[str], list[str]]:
        async with browsing() as page:
            await page.open(url)
            await page.value("document.querySelector('[name=\"email/news\"][value=no]').click()")
            await page.value("document.querySelector('button').click()")
            await page.until("document.querySelector('[role=status]') !== null")
            checked = "document.querySelector('[name=\"email/news\"][value=no]').checked"
            assert await page.value(checked)
            return page.problems, page.requested

    problems, requested = asyncio.run(visit())
    assert problems == []
    assert {each for each in requested if not each.startswith("data:")} == {url}
    assert subscription(served, who, "news")["allowed"] is False


# -- asking for a link


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"subject": "42"}, "$.subject"),
        ({"kind": "login"}, "$.kind"),
        ({"kind": "unsubscribe"}, "$.channel"),
        ({"channel": "email"}, "$.channel"),
        ({"topic": "news"}, "$.topic"),
        ({"kind": "unsubscribe", "channel": "e mail"}, "$.channel"),
    ],
)
def test_bad_requests_for_a_link_are_told_by_path(
    served: Served, who: str, body: dict[str, str], path: str
) -> None:
    headers = {"Authorization": f"Bearer {served.settings.http.keys['consent_desk']}"}
    asked = {"subject": who, "kind": "preferences"} | body
    answer = httpx.post(f"{served.url}/v1/consents/links", json=asked, headers=headers)
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["errors"]] == [path]


def test_an_erased_person_gets_a_link_like_anybody(served: Served, vault: Vault, who: str) -> None:
    subscribe(served, who, "news")
    vault.suppress("user", who.removeprefix("user:"), 5)
    assert httpx.get(link(served, who)["url"]).status_code == 200
    pending = subscribe(served, who, "news", "pending")
    assert send(pending["confirm"]["url"]).status_code == 410
    unknown = served.get(f"/v1/consents/{quote(who, safe='')}", "consent_desk")
    assert unknown.status_code == 404


# -- languages


def read(url: str, language: str) -> httpx.Response:
    return httpx.get(url, headers={"Accept-Language": language}, timeout=30)


def test_a_person_decides_on_what_they_read_in_their_language(
    served: Served, vault: Vault, who: str
) -> None:
    url = link(served, who)["url"]
    shown = read(url, "cs-CZ,cs;q=0.9,en;q=0.5")
    assert '<html lang="cs">' in shown.text and "Vaše volby" in shown.text
    fields = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', shown.text))
    # The form tells what was read, whatever the browser asks for when it is sent.
    saved = httpx.post(
        url, data=fields | {"purpose/sale": "yes"}, headers={"Accept-Language": "de"}, timeout=30
    )
    assert "Uloženo" in saved.text
    (record,) = on_log(served.settings, person(vault, who).pid)
    matters = [
        f"purpose/{name}" for name in ("advertising", "analytics", "personalisation", "sale")
    ]
    assert (record.language, record.text_version) == ("cs", VERSION)
    assert record.text_hash == text_hash(text_of(matters, LANGUAGES["cs"]))


def test_a_confirmation_is_proven_in_the_language_in_which_it_was_read(
    served: Served, vault: Vault, who: str
) -> None:
    url = subscribe(served, who, "news", "pending")["confirm"]["url"]
    assert "Bestätigen" in read(url, "de-AT").text
    assert "angemeldet" in send(url, language="de").text
    record = on_log(served.settings, person(vault, who).pid)[-1]
    assert record.language == "de"
    assert record.text_hash == text_hash(confirmation_text("email/news", LANGUAGES["de"]))
    assert "Ce lien" in read(url, "fr").text
    made = link(served, who, kind="unsubscribe", channel="email", topic="news")
    assert "Cancelar" in read(made["url"], "es").text
