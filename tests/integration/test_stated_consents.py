"""Do an SDK's calls change consent when they say something new, and only then?"""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from runtime import kin
from runtime.consent_overlay import ConsentOverlay
from runtime.sealing import IdType
from runtime.settings import Settings
from schemas.codec import CONSENT_CHANGED
from schemas.consent import allowed_now, decisions_on
from schemas.errors import SettingInvalid
from schemas.requests import ConsentChanged
from schemas.subjects import Consent
from tests.collecting import Running, collect_settings, running_collector

GPC = {"Sec-GPC": "1"}


@pytest.fixture(scope="module")
def settings(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("stated")
    return collect_settings(directory, kafka, redis_url, f"s{uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def collector(settings: Settings) -> Iterator[Running]:
    with running_collector(settings) as running:
        yield running


@pytest.fixture
def user() -> str:
    return f"u-{uuid4().hex[:12]}"


def call(user: str, **changes: Any) -> dict[str, Any]:
    base = {"type": "track", "event": "E", "userId": user, "messageId": str(uuid4())}
    return base | changes


def stamp(user: str, **preferences: bool) -> dict[str, Any]:
    return call(user, context={"consent": {"categoryPreferences": preferences}})


def pid_of(collector: Running, id_type: IdType, external_id: str) -> bytes:
    person = collector.people.lookup(id_type, external_id)
    assert person is not None
    return person.pid


def records(collector: Running, user: str, id_type: IdType = "user") -> list[ConsentChanged]:
    pid = pid_of(collector, id_type, user)
    topic = collector.settings.topic_names.consents
    return [CONSENT_CHANGED.decode(v) for key, v in collector.records(topic) if key == pid]


def in_force(collector: Running, user: str, id_type: IdType = "user") -> list[Consent]:
    pid = pid_of(collector, id_type, user)

    async def read() -> list[Consent]:
        overlay = ConsentOverlay(collector.settings)
        try:
            return await overlay.consents_of(pid)
        finally:
            await overlay.close()

    return asyncio.run(read())


def allows(collector: Running, user: str, purpose: str) -> bool:
    decided = decisions_on(f"purpose/{purpose}", in_force(collector, user))
    return allowed_now("consent", decided, 2_000_000_000_000)


def test_a_stamp_is_written_once_however_many_calls_bear_it(collector: Running, user: str) -> None:
    for _ in range(3):
        calls = [stamp(user, Analytics=True, Advertising=False) for _ in range(5)]
        assert collector.batch(*calls).status_code == 200
    found = {(each.purpose, each.status, each.method) for each in records(collector, user)}
    assert found == {("analytics", "granted", "sdk"), ("advertising", "denied", "sdk")}
    assert len(records(collector, user)) == 2
    assert allows(collector, user, "analytics")
    assert {each.source for each in records(collector, user)} == {"web"}


def test_a_refusal_by_an_erased_name_holds_for_a_known_address(
    collector: Running, user: str
) -> None:
    mail = f"{user}@example.org"
    collector.batch(call(user), call(f"other-{user}", type="identify", traits={"email": mail}))
    collector.people.suppress("user", user, 1_700_000_000_000)
    named = {"properties": {"topic": "news"}, "context": {"traits": {"email": mail.upper()}}}
    assert collector.post("/v1/track", call(user, event="Unsubscribed", **named)).status_code == 200
    (found,) = in_force(collector, mail, "email")
    assert (found.subject_of, found.status) == ("email/news", "unsubscribed")


def test_a_person_too_large_to_ask_about_stops_nobody_else_s_calls(
    collector: Running, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kin, "MOST_PIDS", 2)
    for number in range(2):
        device = {"anonymousId": f"{user}-{number}", "traits": {}}
        collector.batch(call(user, type="identify", **device))
    before = len(collector.collected())
    calls = [stamp(f"{user}-{n}", Advertising=False) for n in "abc"]
    assert collector.batch(stamp(user, Advertising=False), *calls).status_code == 200
    assert len(collector.collected()) == before + 4
    for name in (user, *(f"{user}-{n}" for n in "abc")):
        assert not allows(collector, name, "advertising") and len(records(collector, name)) == 1


def test_calls_that_say_nothing_write_nothing(collector: Running, user: str) -> None:
    collector.post("/v1/track", call(user, context={"consent": None, "locale": "cs"}))
    assert records(collector, user) == []


def test_the_decision_is_on_the_log_before_the_event_that_brought_it(
    collector: Running, user: str
) -> None:
    """Kafka's own times tell: the lane reads consents up to their end before it takes an event."""
    collector.post("/v1/track", stamp(user, Analytics=False))
    (record,) = records(collector, user)
    (event,) = [e for e in collector.collected() if e.pid == record.pid]
    assert record.recorded_at_ms <= event.received_at_ms
    assert record.valid_from_ms == event.occurred_at_ms


def test_a_stamp_does_not_lift_an_unsubscription_but_the_event_made_for_it_does(
    collector: Running, user: str
) -> None:
    collector.post("/v1/track", stamp(user, Sale=True))
    collector.post("/v1/track", stamp(user), headers=GPC)
    assert not allows(collector, user, "sale")
    collector.post("/v1/track", stamp(user, Sale=True))
    assert not allows(collector, user, "sale")
    again = stamp(user, Sale=True) | {"event": "Segment Consent Preference Updated"}
    collector.post("/v1/track", again)
    assert allows(collector, user, "sale")
    statuses = [each.status for each in records(collector, user) if each.purpose == "sale"]
    assert statuses == ["granted", "withdrawn", "granted"]


def test_global_privacy_control_holds_for_browser_and_customer(
    collector: Running, user: str
) -> None:
    body = call(user, anonymousId=f"browser-of-{user}")
    for _ in range(2):
        assert collector.post("/v1/track", body, headers=GPC).status_code == 200
    for id_type, external_id in (("user", user), ("anonymous", f"browser-of-{user}")):
        found = records(collector, external_id, id_type)  # type: ignore[arg-type]
        assert {(e.purpose, e.status, e.method) for e in found} == {
            ("sale", "withdrawn", "gpc"),
            ("advertising", "withdrawn", "gpc"),
        }
        assert len(found) == 2


def test_gpc_of_another_value_says_nothing(collector: Running, user: str) -> None:
    collector.post("/v1/track", call(user), headers={"Sec-GPC": "0"})
    assert records(collector, user) == []


def test_leaving_a_list_holds_for_the_address_and_the_customer(
    collector: Running, user: str
) -> None:
    address = f"{user}@example.com"
    body = call(
        user,
        event="Unsubscribed",
        properties={"list_id": "weekly"},
        context={"traits": {"email": address}},
    )
    collector.post("/v1/track", body)
    for id_type, external_id in (("user", user), ("email", address)):
        (record,) = records(collector, external_id, id_type)  # type: ignore[arg-type]
        assert (record.channel, record.topic, record.status) == ("email", "weekly", "unsubscribed")
        assert record.legal_basis == "consent"


def test_an_erased_person_decides_nothing(collector: Running, user: str) -> None:
    collector.post("/v1/track", call(user))
    pid = pid_of(collector, "user", user)
    collector.people.suppress("user", user, 5)
    assert collector.post("/v1/track", stamp(user, Sale=True), headers=GPC).status_code == 200
    topic = collector.settings.topic_names.consents
    assert [key for key, _ in collector.records(topic) if key == pid] == []


def test_consent_that_cannot_be_read_sets_the_call_aside_and_changes_nothing(
    collector: Running, user: str
) -> None:
    broken = call(user, context={"consent": {"categoryPreferences": {"Sale": "yes"}}})
    assert collector.batch(broken, call(user)).status_code == 200
    (rejected,) = [r for r in collector.rejected() if r.message_id == broken["messageId"]]
    assert rejected.path == "$.batch[0].context.consent.categoryPreferences"
    assert records(collector, user) == []


def test_a_category_of_an_unknown_purpose_stops_the_start(settings: Settings) -> None:
    consent = settings.consent.model_copy(update={"categories": {"Marketing": ("ads",)}})
    wrong = settings.model_copy(update={"consent": consent})
    with (
        pytest.raises(SettingInvalid, match=r"\[consent.categories\] Marketing names ads"),
        running_collector(wrong),
    ):
        pass


def test_a_childs_own_yes_in_a_call_is_no_decision_and_its_no_is(
    collector: Running, user: str
) -> None:
    def told(by: str | None, **values: bool) -> dict[str, Any]:
        consent = {"categoryPreferences": values, "ageBand": "0-12", "authorisedBy": by}
        return call(user, context={"consent": consent})

    for by in ("self", None):
        assert collector.post("/v1/track", told(by, Sale=True, Analytics=False)).status_code == 200
    assert {(each.purpose, each.status) for each in records(collector, user)} == {
        ("analytics", "denied")
    }
    collector.post("/v1/track", told("guardian", Sale=True))
    assert allows(collector, user, "sale")
    # The age is known now: a yes that tells none is a child's.
    collector.post("/v1/track", stamp(user, Advertising=True))
    assert not allows(collector, user, "advertising")
