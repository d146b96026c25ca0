"""The counters that marketers ask for, on ClickHouse's engine."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest

from schemas.counters import COUNTS, PEOPLE
from tests.integration.serving import KEYS, Rows, Served, at, serving, settings_of
from tests.waiting import eventually


@pytest.fixture
def served(tmp_path: Path, clickhouse_url: str, fresh_name: Any) -> Iterator[Served]:
    with serving(
        settings_of(tmp_path, clickhouse_url=clickhouse_url, name=fresh_name("api"))
    ) as port:
        yield port


@pytest.fixture
def rows(served: Served) -> Iterator[Rows]:
    with clickhouse_connect.get_client(dsn=served.settings.clickhouse.url) as client:
        yield Rows.into(client, served.settings)
        client.command(f"DROP DATABASE {served.settings.clickhouse.database}")


def campaign(answer: httpx.Response, campaign_id: str) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    views: list[dict[str, Any]] = answer.json()["campaigns"]
    found = [view for view in views if view["campaign_id"] == campaign_id]
    assert len(found) == 1
    return found[0]


def counters(answer: httpx.Response, campaign_id: str) -> dict[str, int]:
    """Those that are not zero."""
    return {name: n for name, n in campaign(answer, campaign_id)["counters"].items() if n}


def test_before_the_tables_exist_the_answer_is_503_and_says_when_to_retry(served: Served) -> None:
    answer = served.get("/v1/campaigns", "viewer")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_empty_store_has_no_campaigns(served: Served, rows: Rows) -> None:
    answer = served.get("/v1/campaigns", "viewer").json()
    assert answer["campaigns"] == []
    assert answer["as_of"].endswith("Z")


def test_every_counter_is_listed_with_rates_and_money(served: Served, rows: Rows) -> None:
    for person in (1, 2):
        rows.fact("spring", "delivered", person)
        rows.fact("spring", "opened", person)
    rows.fact("spring", "opened", 1)
    rows.fact("spring", "orders", 2, visitor=True, amount_micro=12_500_000, currency="EUR")
    rows.fact("spring", "orders", 2, visitor=True, amount_micro=7_500_001, currency="EUR")
    rows.fact("spring", "refunds", 2, visitor=True, amount_micro=1, currency="EUR")
    rows.progress(at("2026-01-01T09:05:00.250Z"))

    answer = served.get("/v1/campaigns", "viewer")

    assert answer.json()["as_of"] == "2026-01-01T09:05:00.250Z"
    assert answer.headers["cache-control"] == "no-store"
    view = campaign(answer, "spring")
    assert set(view["counters"]) == {*COUNTS, *PEOPLE}
    assert counters(answer, "spring") == {
        "delivered": 2, "opened": 3, "unique_opened": 2, "orders": 2, "buyers": 1, "refunds": 1,
        "visitors": 1,
    }  # fmt: skip
    assert view["revenue"] == [{"currency": "EUR", "amount": "20.000001"}]
    assert view["refunded"] == [{"currency": "EUR", "amount": "0.000001"}]
    assert view["rates"]["open_rate"] == 1.0
    assert view["rates"]["bounce_rate"] is None
    assert view["rates"]["aov"] == [{"currency": "EUR", "amount": "10"}]


def test_average_order_of_several_currencies_counts_each_order_in_its_own(
    served: Served, rows: Rows
) -> None:
    for person, (euros, currency) in enumerate([(10, "EUR"), (20, "EUR"), (8, "USD")]):
        amount_micro = euros * 1_000_000
        rows.fact("a", "orders", person, amount_micro=amount_micro, currency=currency)
    rows.fact("a", "orders", 4)
    rows.client.command("INSERT INTO facts SELECT * FROM facts")
    rows.progress()
    assert campaign(served.get("/v1/campaigns"), "a")["rates"]["aov"] == [
        {"currency": "EUR", "amount": "15"},
        {"currency": "USD", "amount": "8"},
    ]


def test_people_without_a_counter_of_their_own_still_visit(served: Served, rows: Rows) -> None:
    rows.fact("(none)", "", 1, visitor=True)
    rows.progress()
    assert counters(served.get("/v1/campaigns"), "(none)") == {"visitors": 1}


def test_a_person_is_counted_once_for_each_campaign_and_any_span(
    served: Served, rows: Rows
) -> None:
    for moment in ("2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z"):
        rows.fact("a", "clicked", 1, at(moment))
        rows.fact("b", "clicked", 1, at(moment))
    rows.progress()
    answer = served.get("/v1/campaigns")
    assert counters(answer, "a") == counters(answer, "b") == {"clicked": 2, "unique_clicked": 1}


def test_span_includes_its_first_minute_and_not_its_last(served: Served, rows: Rows) -> None:
    for second in ("08:59:59.999", "09:00:00", "09:00:59.999", "09:01:00"):
        rows.fact("a", "opened", 1, at(f"2026-01-01T{second}Z"))
    rows.progress()
    span = {"from": "2026-01-01T09:00:00Z", "to": "2026-01-01T09:01:00Z"}
    assert counters(served.get("/v1/campaigns", **span), "a") == {"opened": 2, "unique_opened": 1}
    # Within minutes there is no finer answer: those that begin in the span are whole.
    span = {"from": "2026-01-01T10:58:30+02:00", "to": "2026-01-01T11:00:30+02:00"}
    assert counters(served.get("/v1/campaigns", **span), "a") == {"opened": 3, "unique_opened": 1}


def test_a_span_that_is_not_one_is_refused_by_name(served: Served, rows: Rows) -> None:
    for query in (
        {"from": "yesterday"},
        {"from": "2026-01-01T09:00:00"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ):
        answer = served.get("/v1/campaigns", **query)
        assert answer.status_code == 400
        (fault,) = answer.json()["errors"]
        assert fault["path"] in ("query.from", "query.to")
        assert fault["expected"]


def test_distant_times_are_no_error(served: Served, rows: Rows) -> None:
    rows.fact("a", "opened", 1)
    rows.progress()
    span = {"from": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59Z"}
    assert counters(served.get("/v1/campaigns", **span), "a")


def test_rows_that_a_crash_repeated_change_nothing(served: Served, rows: Rows) -> None:
    rows.fact("a", "opened", 1)
    rows.fact("a", "orders", 1, visitor=True, amount_micro=5, currency="EUR")
    rows.progress()
    before = served.get("/v1/campaigns").json()
    for table in ("facts", "counters"):
        rows.client.command(f"INSERT INTO {table} SELECT * FROM {table}")
    assert served.get("/v1/campaigns").json() == before


def test_facts_whose_counters_are_not_written_yet_show_no_people(
    served: Served, rows: Rows
) -> None:
    rows.fact("a", "opened", 1)
    rows.progress()
    rows.fact("a", "opened", 2, is_counted=False)
    assert counters(served.get("/v1/campaigns"), "a") == {"opened": 1, "unique_opened": 1}
    rows.count("a", "opened", 1)  # the counters are there, the progress is not
    assert counters(served.get("/v1/campaigns"), "a") == {"opened": 2, "unique_opened": 2}


def test_a_retraction_takes_its_person_back_and_nobody_else(served: Served, rows: Rows) -> None:
    for person in (1, 2):
        rows.fact("a", "opened", person)
    rows.fact("a", "opened", 3)
    rows.fact("a", "opened", 3)
    rows.retract("a", "opened", 2, 1)
    rows.retract("a", "opened", 3, 3)
    rows.progress()
    assert counters(served.get("/v1/campaigns"), "a") == {"opened": 2, "unique_opened": 2}
    series = served.get("/v1/campaigns/a/series", "viewer", metric="unique_opened").json()
    assert [point[1] for point in series["points"]] == [2]


def test_series_steps_are_whole_and_empty_ones_left_out(served: Served, rows: Rows) -> None:
    for second in ("09:00:10", "09:00:50", "09:04:00", "10:00:00"):
        rows.fact("a/b", "opened", 1, at(f"2026-01-01T{second}Z"))
    rows.progress()

    def points(metric: str, **query: str | float) -> Any:
        answer = served.get("/v1/campaigns/a%2Fb/series", "viewer", metric=metric, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()["points"]

    assert points("opened") == [
        ["2026-01-01T09:00:00.000Z", 2],
        ["2026-01-01T09:04:00.000Z", 1],
        ["2026-01-01T10:00:00.000Z", 1],
    ]
    assert points("opened", step=3600) == [
        ["2026-01-01T09:00:00.000Z", 3],
        ["2026-01-01T10:00:00.000Z", 1],
    ]
    assert points("unique_opened", step=3600, to="2026-01-01T10:00:00Z") == [
        ["2026-01-01T09:00:00.000Z", 1]
    ]
    assert points("visitors") == points("revenue") == []


def test_series_of_money_is_decimal_text_of_one_currency(served: Served, rows: Rows) -> None:
    rows.fact("a", "orders", 1, amount_micro=12_500_000, currency="EUR")
    path, moment = "/v1/campaigns/a/series", "2026-01-01T09:00:00.000Z"
    assert served.get(path, metric="revenue").json()["points"] == [[moment, "12.5"]]
    rows.fact("a", "orders", 1, amount_micro=3_000_000, currency="USD")
    answer = served.get(path, metric="revenue")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"path": "query.currency", "expected": "one of EUR, USD"}]
    assert served.get(path, metric="revenue", currency="USD").json()["points"] == [[moment, "3"]]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({}, "query.metric"),
        ({"metric": "orderz"}, "query.metric"),
        ({"metric": "orders", "step": "90"}, "query.step"),
        ({"metric": "orders", "step": "0"}, "query.step"),
        ({"metric": "orders", "step": "soon"}, "query.step"),
    ],
)
def test_series_names_what_is_wrong(
    served: Served, rows: Rows, query: dict[str, str], path: str
) -> None:
    answer = served.get("/v1/campaigns/a/series", **query)
    assert answer.status_code == 400
    assert [fault["path"] for fault in answer.json()["errors"]] == [path]


class Listener:
    """Reads the stream in a thread."""

    def __init__(self, served: Served) -> None:
        self.events: list[tuple[str, Any]] = []
        self.is_over = False
        self._url = f"{served.url}/v1/campaigns/stream"
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        headers = {"Authorization": f"Bearer {KEYS['viewer']}"}
        with httpx.stream("GET", self._url, headers=headers, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.events.append((kind, json.loads(line.removeprefix("data: "))))
        self.is_over = True

    def shows(self, **counters: int) -> bool:
        """Whether these are the counters of the campaign `a` as last heard, and no others."""
        return self.newest() == counters

    def newest(self) -> dict[str, int]:
        if not self.events or self.events[-1][0] != "counters":
            return {}
        found = [v for v in self.events[-1][1]["campaigns"] if v["campaign_id"] == "a"]
        return {n: v for n, v in found[0]["counters"].items() if v} if found else {}

    def join(self) -> None:
        self._thread.join(10)


def test_stream_tells_everybody_what_moved_and_ends_with_the_server(
    tmp_path: Path, clickhouse_url: str, fresh_name: Any
) -> None:
    settings = settings_of(tmp_path, clickhouse_url=clickhouse_url, name=fresh_name("live"))
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        rows = Rows.into(client, settings)
        rows.fact("a", "opened", 1)
        rows.progress(at("2026-01-01T09:00:00Z"))
        with serving(settings) as served:
            listeners = [Listener(served), Listener(served)]
            for listener in listeners:
                eventually(partial(listener.shows, opened=1, unique_opened=1))
            rows.fact("a", "opened", 2)
            rows.progress(at("2026-01-01T09:00:01Z"))
            for listener in listeners:
                eventually(partial(listener.shows, opened=2, unique_opened=2))
                kind, told = listener.events[-1]
            asked = served.get("/v1/campaigns", "viewer").json()
            assert (kind, told) == ("counters", asked)
        for listener in listeners:
            listener.join()
            assert listener.is_over
        client.command(f"DROP DATABASE {settings.clickhouse.database}")


def test_stream_says_when_the_counters_cannot_be_read_and_recovers(
    served: Served,
) -> None:
    listener = Listener(served)
    eventually(lambda: [kind for kind, _ in listener.events] == ["stale"])
    with clickhouse_connect.get_client(dsn=served.settings.clickhouse.url) as client:
        rows = Rows.into(client, served.settings)
        rows.fact("a", "opened", 1)
        rows.progress()
        eventually(lambda: listener.newest() == {"opened": 1, "unique_opened": 1})
        client.command(f"DROP DATABASE {served.settings.clickhouse.database}")
