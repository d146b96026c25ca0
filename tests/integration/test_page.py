"""The live page, in a real browser on a real port over ClickHouse's engine."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest

from runtime.processes import free_ports
from schemas.counters import COUNTS, MONEY, PEOPLE, RATES
from tests.browser import Page, browsing
from tests.integration.serving import KEYS, Rows, Served, at, serving, settings_of

VIEWER = KEYS["viewer"]
CELL = "document.querySelector('#rows tr td:nth-child({})')?.textContent"
OPENERS = 4  # after the campaign's name: sent, delivered, openers


@pytest.fixture
def served(tmp_path: Path, clickhouse_url: str, fresh_name: Any) -> Iterator[Served]:
    with serving(
        settings_of(tmp_path, clickhouse_url=clickhouse_url, name=fresh_name("page"))
    ) as port:
        yield port


@pytest.fixture
def rows(served: Served) -> Iterator[Rows]:
    with clickhouse_connect.get_client(dsn=served.settings.clickhouse.url) as client:
        yield Rows.into(client, served.settings)
        client.command(f"DROP DATABASE {served.settings.clickhouse.database}")


def in_browser(story: Callable[[Page], Awaitable[None]]) -> None:
    async def run() -> None:
        async with browsing() as page:
            await story(page)

    asyncio.run(run())


def test_page_is_served_with_a_policy_that_allows_only_its_own_files(served: Served) -> None:
    answer = served.get("/", role=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert named
    for path in named:
        assert path.startswith("/page/")
        assert served.get(path, role=None).status_code == 200
    assert served.get("/page/../http.py", role=None).status_code == 404
    assert served.get("/page/index.html", role=None).status_code == 404


def test_page_is_not_sent_again_until_it_changes(served: Served) -> None:

    tag = served.get("/page/app.js", role=None).headers["etag"]
    answer = httpx.get(f"{served.url}/page/app.js", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_page_names_every_counter_and_rate(checkout: Path) -> None:
    script = (checkout / "consumers" / "campaigns" / "page" / "app.js").read_text()
    for name in (*COUNTS, *PEOPLE, *RATES):
        assert f'("{name}",' in script
    for name in (*MONEY, "aov"):
        assert f".{name}" in script


@pytest.mark.browser
def test_counters_move_by_themselves_and_the_key_leaves_the_address(
    served: Served, rows: Rows
) -> None:
    rows.fact("spring", "opened", 1)
    rows.fact("spring", "orders", 1, amount_micro=12_500_000, currency="EUR")
    rows.progress(at("2026-01-01T09:00:00Z"))

    async def story(page: Page) -> None:
        await page.open(f"{served.url}/#key={VIEWER}")
        await page.until("document.getElementById('state').dataset.state === 'live'")
        assert await page.value(CELL.format(OPENERS)) == "1"
        assert "€12.50" in await page.value("document.querySelector('#rows').textContent")
        assert await page.value("location.href") == f"{served.url}/"
        rows.fact("spring", "opened", 2)
        rows.progress(at("2026-01-01T09:00:01Z"))
        await page.until(f"{CELL.format(OPENERS)} === '2'")
        moved = "[...document.querySelectorAll('#rows .moved')].map(cell => cell.textContent)"
        assert "2" in await page.value(moved)
        rows.fact("autumn", "sent", 2)
        rows.progress(at("2026-01-01T09:00:02Z"))
        await page.until("document.querySelectorAll('#rows tr').length === 2")
        assert page.problems == []
        assert {url.split("/")[2] for url in page.requested} == {served.url.split("/")[2]}

    in_browser(story)


@pytest.mark.browser
def test_page_asks_for_a_key_and_says_what_is_wrong_with_another(
    served: Served, rows: Rows
) -> None:
    rows.fact("spring", "sent", 1)
    rows.progress()
    enter = (
        "document.getElementById('key').value = '{}';document.querySelector('#ask button').click()"
    )
    why = "document.getElementById('ask-why').textContent"

    async def story(page: Page) -> None:
        await page.open(served.url)
        await page.until("document.activeElement?.id === 'key'")
        assert not await page.value("document.querySelector('#rows').hasChildNodes()")
        await page.value(enter.format("nobody's".replace("'", "")))
        await page.until(f"{why}.includes('not known')")
        await page.value(enter.format(KEYS["write"]))
        await page.until(f"{why}.includes('another role')")
        await page.value(enter.format(VIEWER))
        await page.until("document.querySelectorAll('#rows tr').length === 1")
        await page.value("document.getElementById('forget').click()")
        await page.until("!document.getElementById('ask').hidden")
        assert await page.value("document.getElementById('counters').hidden")
        assert await page.value("sessionStorage.length") == 0

    in_browser(story)


@pytest.mark.browser
def test_an_empty_page_says_how_to_send_the_first_event_and_then_shows_it(
    served: Served, rows: Rows
) -> None:
    async def story(page: Page) -> None:
        await page.open(f"{served.url}/#key={VIEWER}")
        await page.until("!document.getElementById('empty').hidden")
        command = await page.value("document.getElementById('first-event').textContent")
        assert f"{served.url}/v1/track" in command
        rows.fact("spring", "opened", 1)
        rows.progress()
        await page.until("document.querySelectorAll('#rows tr').length === 1")
        assert await page.value("document.getElementById('empty').hidden")

    in_browser(story)


@pytest.mark.browser
def test_a_hostile_campaign_name_is_only_text(served: Served, rows: Rows) -> None:
    name = "<img src=x onerror=document.title='owned'>"
    rows.fact(name, "sent", 1)
    rows.progress()

    async def story(page: Page) -> None:
        await page.open(f"{served.url}/#key={VIEWER}")
        await page.until("document.querySelectorAll('#rows tr').length === 1")
        assert await page.value("document.querySelector('#rows th').textContent") == name
        assert await page.value("document.images.length") == 0
        assert "owned" not in await page.value("document.title")

    in_browser(story)


@pytest.mark.browser
def test_all_counters_can_be_shown(served: Served, rows: Rows) -> None:
    rows.fact("spring", "cart_adds", 1)
    rows.progress()

    async def story(page: Page) -> None:
        await page.open(f"{served.url}/#key={VIEWER}")
        await page.until("document.querySelectorAll('#rows tr').length === 1")
        heads = "[...document.querySelectorAll('#head th[scope=col]')].map(th => th.textContent)"
        assert "Added to cart" not in await page.value(heads)
        await page.value("document.getElementById('all').click()")
        assert "Added to cart" in await page.value(heads)
        columns = "document.querySelector('#rows tr').children.length"
        assert await page.value(columns) == len(await page.value(heads))

    in_browser(story)


@pytest.mark.browser
def test_page_says_that_the_connection_is_lost_and_comes_back(
    tmp_path: Path, clickhouse_url: str, fresh_name: Any
) -> None:
    settings = settings_of(tmp_path, clickhouse_url=clickhouse_url, name=fresh_name("page"))
    state = "document.getElementById('state').dataset.state"
    (port,) = free_ports(1)  # that no outgoing connection takes while nobody listens there

    async def story(page: Page) -> None:
        with serving(settings, port=port) as first:
            await page.open(f"{first.url}/#key={VIEWER}")
            await page.until(f"{state} === 'lost'")  # the tables are not there yet
            with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
                Rows.into(client, settings)
            await page.until(f"{state} === 'live'")
        await page.until(f"{state} === 'lost'")
        with serving(settings, port=port):
            await page.until(f"{state} === 'live'")

    in_browser(story)
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        client.command(f"DROP DATABASE {settings.clickhouse.database}")
