"""Everything held on one person, whole and readable; nothing of anybody else, nothing once erased."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from headwater.export import export_subject
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.consent_overlay import ConsentOverlay
from runtime.sealing import Person
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.codec import ACCEPTED, COLLECTED, CONSENT_CHANGED, RETRACTED
from schemas.errors import SettingInvalid, StoreRefused
from schemas.events import Accepted, Collected, Retracted, SealedTrait
from schemas.identity import RANK, Claim
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged
from schemas.subjects import Consent, Trait
from sinks.rules.links import LINK_COLUMNS, Link
from sinks.rules.rows import FACT_COLUMNS, fact_rows
from tests.integration.serving import MORNING_MS, Served, serving, settings_of
from tests.integration.test_profiles_api import known, store, subject

HOSTILE = "<script>alert('x')</script> \" & ž🎈"
DAY_MS = 86_400_000


@dataclass
class Desk:
    """A served Headwater and what lies in its stores about `person`."""

    served: Served
    vault: Vault
    person: Person
    producer: Producer

    @property
    def settings(self) -> Settings:
        return self.served.settings

    def produce(self, topic: str, value: bytes, pid: bytes) -> int:
        """Put a record into the person's partition; its offset."""
        offsets: list[int] = []
        partition = partition_of(pid, self.settings.kafka.partitions)
        self.producer.produce(
            topic, value, pid, partition, on_delivery=lambda _, m: offsets.append(m.offset())
        )
        assert self.producer.flush(30) == 0
        return offsets[0]

    def event(self, number: int, person: Person | None = None, **content: Any) -> Collected:
        """A call as the collector seals it."""
        person = person or self.person
        event_id = number.to_bytes(16, "big")
        traits = content.pop("traits", {})
        rest = {"ids": {"user": "42", "email": f"{HOSTILE}@x"}, "message_id": f"m-{number}"}
        sealed = {"properties": {"note": HOSTILE, "products": [{"engraving": "For Eva"}]}}
        return Collected(
            event_id=event_id,
            pid=person.pid,
            source="web",
            type="identify" if traits else "track",
            event="" if traits else "Order Completed",
            occurred_at_ms=MORNING_MS + number,
            sent_at_ms=None,
            received_at_ms=MORNING_MS + 1000 + number,
            flags=0,
            body_digest=number,
            clear=orjson.dumps(
                {"properties": {"order_id": f"o-{number}", "products": [{"sku": "A"}]}}
            ),
            traits=[
                SealedTrait(
                    name.encode().ljust(8), person.seal(orjson.dumps([name, value]), event_id)
                )
                for name, value in traits.items()
            ],
            key_version=1,
            sealed=person.seal(orjson.dumps(rest | sealed), event_id),
        )

    def accept(self, event: Collected, *, is_logged: bool = True) -> Accepted:
        """The event is on both topics and in the facts, as lane and sink write them; or the log has
        forgotten it."""
        names = self.settings.topic_names
        source = 0
        if is_logged:
            source = self.produce(names.collected, COLLECTED.encode(event), event.pid)
        p = partition_of(event.pid, self.settings.kafka.partitions)
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        accepted = Accepted(
            **fields, generation=1, lane=p, seq=1, source_topic=names.collected,
            source_partition=p, source_offset=source, index=0, campaign_id="spring",
            is_repeat_order=False, amount_micro=12_500_000, currency="EUR", visit_changes=[],
        )  # fmt: skip
        offset = 0
        if is_logged:
            offset = self.produce(names.accepted, ACCEPTED.encode(accepted), event.pid)
        with connect(self.settings) as client:
            columns = list(zip(*fact_rows(accepted, p, offset), strict=True))
            client.insert("facts", columns, column_names=FACT_COLUMNS, column_oriented=True)
        return accepted

    def decide(self) -> None:
        """A decision with its proof is on the log."""
        change = ConsentChanged(
            b"r" * 16, self.person.pid, "advertising", None, None, "consent", "granted", MORNING_MS,
            None, MORNING_MS, "form", "form", "text-v7", b"h", "en", "CZ",
        )  # fmt: skip
        topic = self.settings.topic_names.consents
        self.produce(topic, CONSENT_CHANGED.encode(change), self.person.pid)

    def export(self, subject: str = "user:42", **query: str) -> Any:
        answer = self.served.get(f"/v1/subjects/{subject}/export", "privacy_officer", **query)
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture
def desk(
    tmp_path: Path,
    kafka: str,
    redis_url: str,
    clickhouse_url: str,
    redis_client: Any,
    fresh_name: Callable[[str], str],
) -> Iterator[Desk]:
    settings = settings_of(
        tmp_path,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=fresh_name("export"),
    )
    prepare_stores(settings)
    vault = Vault.from_settings(settings)
    person = known(vault, "user", "42")
    store(redis_client, settings, subject(person))
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 1})
    with serving(settings) as served:
        yield Desk(served, vault, person, producer)
    vault.close()
    with connect(settings, database="default") as client:
        client.command(f"DROP DATABASE {settings.clickhouse.database}")


def test_everything_of_the_person_is_told_with_source_use_and_time(desk: Desk) -> None:
    accepted = desk.accept(desk.event(1))
    late = desk.event(2)
    offset = desk.produce(desk.settings.topic_names.collected, COLLECTED.encode(late), late.pid)
    desk.decide()

    told = desk.export().json()

    assert told["complete"] is True
    assert told["identifiers"][0] | {"used_for": 0} == {
        "type": "user", "value": "42", "where": "vault", "kept": "until the person is erased",
        "used_for": 0,
    }  # fmt: skip
    traits = {trait["name"]: trait["value"] for trait in told["traits"]}
    assert traits == {"email": "jana@example.com", "vip": True, "gone": None}
    assert told["profile"][0]["spent"] == [{"currency": "EUR", "amount": "19.99"}]
    (proof,) = told["consents"]
    assert (proof["purpose"], proof["status"], proof["text_version"]) == (
        "advertising",
        "granted",
        "text-v7",
    )

    first, second = told["events"]
    assert first["state"] == "accepted"
    assert first["properties"] == {
        "order_id": "o-1", "note": HOSTILE, "products": [{"sku": "A", "engraving": "For Eva"}],
    }  # fmt: skip
    assert first["identifiers"] == {"user": "42", "email": f"{HOSTILE}@x"}
    p = accepted.lane
    names = desk.settings.topic_names
    assert first["source_event"]["where"] == f"{names.collected}[{p}]@{accepted.source_offset}"
    bases = {use["purpose"]: use["legal_basis"] for use in first["used_for"]}
    assert bases == {"analytics": "legitimate_interest", "personalisation": "legitimate_interest"}
    assert re.fullmatch(r"until 20\d\d-.* at the latest", first["kept"])
    assert second["state"] == "collected, not accepted"
    assert second["where"] == f"{names.collected}[{p}]@{offset}"

    (fact,) = told["facts"]
    assert (fact["campaign_id"], fact["metric"], fact["amount"]) == ("spring", "orders", "12.5")
    assert fact["event_id"] == accepted.event_id.hex()
    assert told["counters"] == [
        {"campaign_id": "spring", "metric": "orders", "value": 1, "currency": "EUR",
         "amount": "12.5", "facts": 1}
    ]  # fmt: skip
    (read,) = told["accesses"]
    assert (read["role"], read["what"]) == ("privacy_officer", "export")


def test_what_was_taken_back_is_told_and_counts_no_more(desk: Desk) -> None:
    accepted = desk.accept(desk.event(1))
    decision = Consent("purpose/analytics", "withdrawn", 0, None, MORNING_MS)
    retracted = Retracted(
        desk.person.pid, "analytics", "legitimate_interest", [decision], 1, accepted.lane, 2,
        desk.settings.topic_names.consents, accepted.lane, 0, 0,
    )  # fmt: skip
    desk.produce(desk.settings.topic_names.accepted, RETRACTED.encode(retracted), desk.person.pid)
    with connect(desk.settings) as client:
        client.command(
            "INSERT INTO facts SELECT * REPLACE (toUInt64(2) AS retracted_next_off) FROM facts"
        )
    told = desk.export().json()
    assert [fact["counts"] for fact in told["facts"]] == [False]
    assert told["counters"] == []
    assert [event["state"] for event in told["events"]] == ["accepted", "events taken back"]
    assert told["events"][1]["decisions"][0]["status"] == "withdrawn"


def test_a_rectification_is_told_with_who_when_and_which_event(desk: Desk) -> None:
    desk.accept(desk.event(1, traits={"email": "old@example.com", "vip": True}))
    desk.accept(desk.event(2, traits={"email": "new@example.com", "vip": True}))
    first, second = desk.export().json()["events"]
    assert [change["kind"] for change in first["changed_traits"]] == ["first seen here"] * 2
    assert second["changed_traits"] == [
        {"trait": "email", "from": "old@example.com", "to": "new@example.com", "kind": "rectified"}
    ]
    assert (second["source"], second["event_id"]) == ("web", f"{2:032x}")
    assert second["occurred_at"].startswith("2026-01-01T09:00:00")


def test_the_newest_rectification_is_known_after_the_log_forgot_it(
    desk: Desk, redis_client: Any
) -> None:
    accepted = desk.accept(desk.event(1, traits={"email": "new@example.com"}), is_logged=False)
    (sealed,) = accepted.traits
    trait = Trait(sealed.key, accepted.occurred_at_ms, accepted.event_id, sealed.sealed)
    store(redis_client, desk.settings, subject(desk.person, traits=[trait]))
    told = desk.export().json()
    assert told["events"] == []
    (found,) = told["traits"]
    assert (found["value"], found["key"]) == ("new@example.com", sealed.key.hex())
    assert found["event_id"] == accepted.event_id.hex()
    assert found["set_by"] == {"source": "web", "received_at": "2026-01-01T09:00:01.001Z"}


def test_as_whose_their_facts_are_counted_is_told_and_nobody_else_is_named(desk: Desk) -> None:
    mail = known(desk.vault, "email", "jana@example.com")
    claim = Claim(desk.person.pid, RANK["user"], 1, bytes(16), "identify")
    asyncio.run(claim_for(desk.settings, mail.pid, claim))
    stranger = b"z" * 16
    rows = [
        Link(desk.person.pid, mail.pid, True, False, 1, 0, 7, b"salt" * 4),
        Link(stranger, mail.pid, True, False, 1, 1, 3, b"tlas" * 4),
        Link(stranger, mail.pid, False, False, 1, 1, 9, b"salz" * 4),
    ]
    with connect(desk.settings) as client:
        told = [[getattr(row, name) for name in LINK_COLUMNS] for row in rows]
        client.insert("links", told, column_names=LINK_COLUMNS)
    export = desk.export()
    hers, was, is_no_more = sorted(export.json()["links"], key=lambda each: each["source_record"])
    topic = desk.settings.topic_names.accepted
    assert hers | {"used_for": 0, "held_under": 0} == {
        "identifier": "email:jana@example.com", "counts_as": "user:42", "says": "joins",
        "because_erased": False, "is_newest": True, "where": "table links, of generation 1",
        "source_record": f"{topic}[0]@7", "kept": "until all whom it joins are erased",
        "used_for": 0, "held_under": 0,
    }  # fmt: skip
    purposes = {use["purpose"] for use in hers["used_for"]}
    assert purposes == {"accountability", "analytics"}
    assert [was[name] for name in ("counts_as", "says", "is_newest")] == [
        "somebody else",
        "joins",
        False,
    ]
    assert [is_no_more[name] for name in ("says", "is_newest")] == ["leaves", True]
    assert stranger.hex() not in export.text and (b"salt" * 4).hex() not in export.text


async def claim_for(settings: Settings, pid: bytes, claim: Claim) -> None:
    overlay = ConsentOverlay(settings)
    await overlay.kin.put([(pid, claim)])
    await overlay.close()


def test_nothing_of_anybody_else_is_told(desk: Desk) -> None:
    others = [known(desk.vault, "user", f"other-{number}") for number in range(6)]
    for number, other in enumerate(others):
        desk.accept(desk.event(100 + number, other))
    desk.accept(desk.event(1))
    text = desk.export().text
    assert len(orjson.loads(text)["events"]) == 1
    assert [other.pid.hex() for other in others if other.pid.hex() in text] == []
    assert "o-10" not in text


def test_more_events_and_facts_than_a_page_holds_are_all_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.exports.person_facts.PAGE", 7)
    for number in range(20):
        desk.accept(desk.event(number))
    told = desk.export().json()
    assert [fact["event_id"] for fact in told["facts"]] == [f"{n:032x}" for n in range(20)]
    assert [event["event_id"] for event in told["events"]] == [f"{n:032x}" for n in range(20)]


def test_an_erased_person_is_as_unknown_as_one_who_never_was(desk: Desk, redis_client: Any) -> None:
    desk.accept(desk.event(1))
    desk.vault.suppress("user", "42", 5)
    stub = known(desk.vault, "user", "stub")
    key = f"{desk.settings.redis.key_prefix}{stub.pid.hex()}"
    redis_client.hset(key, mapping={"g": 1, "v": 5, "d": "1"})
    paths = [f"/v1/subjects/user:{name}/export" for name in ("42", "nobody", "stub")]
    answers = [desk.served.get(path, "privacy_officer") for path in paths]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert len({answer.content for answer in answers}) == 1
    with connect(desk.settings) as client:
        assert client.query("SELECT count() FROM accesses").result_rows == [(0,)]


def test_only_a_privacy_officer_may_ask_and_only_for_a_subject(desk: Desk) -> None:
    path = "/v1/subjects/user:42/export"
    assert desk.served.get(path, "activation").status_code == 403
    assert desk.served.get(path, None).status_code == 401
    assert desk.served.get("/v1/subjects/42/export", "privacy_officer").status_code == 400
    assert desk.served.get(path, "privacy_officer", format="xml").status_code == 400


def test_no_export_without_the_record_of_who_asked(desk: Desk) -> None:
    with connect(desk.settings) as client:
        client.command("DROP TABLE accesses")
    answer = desk.served.get("/v1/subjects/user:42/export", "privacy_officer")
    assert answer.status_code == 503
    assert "jana" not in answer.text


class Reading(HTMLParser):
    """Tags and texts of a page, and whatever it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe", "object"):
            self.fetched.append(tag)
        self.fetched += [
            v or "" for n, v in attributes if n in ("src", "href") and v and v[0] != "#"
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_for_people_is_whole_escaped_and_needs_nothing_else(desk: Desk) -> None:
    desk.accept(desk.event(1))
    desk.decide()
    answer = desk.export(format="html")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Reading(answer.text)
    assert page.open == []
    assert page.fetched == []
    assert any(HOSTILE in text for text in page.texts)
    assert {"text-v7", "advertising"} <= set(page.texts), "a decision is shown with its proof"
    assert "analytics, on the basis of legitimate interest" in page.texts
    assert "The export is complete." in page.texts
    assert {"Identifiers", "Every event", "Who read your data"} <= set(page.texts)


def run(desk: Desk, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    file = tmp_path / "headwater.json"
    http = desk.settings.http.model_copy(update={"port": int(desk.served.url.rsplit(":", 1)[1])})
    away = {"http": http, "data_dir": str(tmp_path / "nobody")}
    file.write_text(desk.settings.model_copy(update=away).model_dump_json())
    command = [sys.executable, "-m", "headwater", "export", *arguments, "--config", str(file)]
    return subprocess.run(command, capture_output=True, timeout=60)


def test_the_command_writes_a_whole_file_for_its_owner_alone(desk: Desk, tmp_path: Path) -> None:
    desk.accept(desk.event(1))
    target = tmp_path / "out.json"
    ended = run(desk, tmp_path, "user:42", "--output", str(target))
    assert ended.returncode == 0, ended.stderr
    assert orjson.loads(target.read_bytes())["complete"] is True
    assert target.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.part"))
    assert orjson.loads(run(desk, tmp_path, "user:42").stdout)["subject"] == "user:42"


def test_the_command_says_what_it_expects(desk: Desk, tmp_path: Path) -> None:
    ended = run(desk, tmp_path, "42")
    assert ended.returncode == 2
    assert "SUBJECT: expected user:ID" in ended.stderr.decode()
    with pytest.raises(SettingInvalid, match="--format xml: expected json or html"):
        export_subject(desk.settings, "user:42", "xml", None)
    http = desk.settings.http.model_copy(update={"port": int(desk.served.url.rsplit(":", 1)[1])})
    served = desk.settings.model_copy(update={"http": http})
    with pytest.raises(StoreRefused, match="Nobody is known by this identifier"):
        export_subject(served, "user:nobody", "json", None)


def test_an_export_breaks_off_when_the_person_is_erased_meanwhile(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from consumers.exports.subject_to_export import Exporter

    reads = Exporter._facts

    async def erased_while(self: Exporter, held: Any) -> Any:
        desk.vault.suppress("user", "42", 5)
        async for item in reads(self, held):
            yield item

    monkeypatch.setattr(Exporter, "_facts", erased_while)
    target = tmp_path / "out.json"
    ended = run(desk, tmp_path, "user:42", "--output", str(target))
    assert ended.returncode == 1
    assert not target.exists()
    assert not list(tmp_path.glob("*.part"))
