"""Does the audit find every record of consent that is not as it was written, and name the first?

The rewritten logs are real topics. What the ledger kept of the true one is put beside them, as it
would be had somebody rewritten the log under it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from headwater.cli import app
from headwater.consent_audit import Audit, audit_consents
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.settings import Settings
from runtime.signing import Signer
from runtime.topics_admin import ensure_topics
from schemas.codec import CONSENT_CHANGED
from schemas.decisions import Decision, news_of
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable
from sinks.chain_store import ChainStore
from sinks.consents_to_ledger import Ledger, signer_of
from sinks.rules.chain import GENESIS, Head, Raw, SignedHead, chain_on, statement_of
from tests.integration.serving import settings_of
from tests.waiting import eventually

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 1_000
COUNT = 12
Values = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def all_settings(
    kafka: str, clickhouse_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("ledger")
    made = settings_of(
        directory,
        kafka=kafka,
        clickhouse_url=clickhouse_url,
        redis_url=redis_url,
        name=directory.name,
    )
    (directory / "signing").write_text("ab" * 32)
    consent = made.consent.model_copy(update={"signing_key_file": str(directory / "signing")})
    one = made.kafka.model_copy(update={"partitions": 1})
    made = made.model_copy(update={"consent": consent, "kafka": one})
    prepare_stores(made)
    yield made
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture
def settings(all_settings: Settings, fresh_name: Any) -> Settings:
    """With a log of the test's own."""
    kafka = all_settings.kafka.model_copy(update={"topic_prefix": f"{fresh_name('ledger')}."})
    made = all_settings.model_copy(update={"kafka": kafka})
    ensure_topics(made)
    return made


def decisions(count: int) -> Values:
    """Records as the desk writes them."""
    found = []
    for number in range(count):
        pid = number.to_bytes(16, "big")
        decision = Decision("purpose/sale", "granted", "form")
        news = news_of(pid, decision, (), way="said", legal_basis="consent", now_ms=NOW_MS)
        assert news is not None
        found.append((pid, CONSENT_CHANGED.encode(news.change)))
    return found


def write(settings: Settings, values: Values) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for key, value in values:
        producer.produce(settings.topic_names.consents, value, key, partition=0)
    assert producer.flush(20) == 0


def step(settings: Settings, now_ms: int = NOW_MS) -> int:
    """As the role does it: a partition that was just made may have no leader for a moment."""
    ledger = Ledger(settings, signer_of(settings), clock=lambda: now_ms)

    def done() -> tuple[int]:
        try:
            return (ledger.step(),)
        except StoreUnavailable as fault:
            raise AssertionError(str(fault)) from fault

    try:
        return eventually(done)[0]
    finally:
        ledger.close()


def remember(settings: Settings, values: Values, signed: tuple[int, ...] = (5, COUNT)) -> None:
    """What the ledger would have kept of a log of `values`, signed when it was so long."""
    store, signer = ChainStore(settings), signer_of(settings)
    assert signer is not None
    records: list[Raw] = [(offset, *each) for offset, each in enumerate(values)]
    heads = chain_on(GENESIS, records)
    store.add(0, heads)
    for next_offset in signed:
        head = Head(next_offset, heads[next_offset - 1][1])
        statement = statement_of(store.topic, store.generation, 0, head, NOW_MS)
        vouched = SignedHead(head, NOW_MS, signer.public_key, signer.sign(statement))
        store.add_signed({0: vouched})
    store.close()


def places(audit: Audit) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in audit.differences]


def test_a_log_that_is_as_it_was_written_holds(settings: Settings) -> None:
    write(settings, decisions(COUNT))
    assert step(settings) == COUNT
    audit = audit_consents(settings)
    assert audit.differences == []
    (found,) = audit.partitions
    assert (found.chained, found.signed_heads, found.signed_until) == (COUNT, 1, COUNT)
    assert "The chain holds: 12 records" in audit.lines()[0]


def test_what_the_ledger_keeps_is_what_these_tests_put_beside_a_log(settings: Settings) -> None:
    values = decisions(COUNT)
    write(settings, values)
    remember(settings, values)
    assert audit_consents(settings).differences == []
    assert step(settings) == 0


def change_one(values: Values) -> Values:
    key, value = values[7]
    changed = CONSENT_CHANGED.decode(value)
    other = CONSENT_CHANGED.encode(
        type(changed)(
            **{f: getattr(changed, f) for f in changed.__struct_fields__} | {"source": "x"}
        )
    )
    return [*values[:7], (key, other), *values[8:]]


def change_a_key(values: Values) -> Values:
    return [*values[:7], (bytes(16), values[7][1]), *values[8:]]


def leave_one_out(values: Values) -> Values:
    return [*values[:7], *values[8:]]


def swap_two(values: Values) -> Values:
    return [*values[:7], values[8], values[7], *values[9:]]


def put_one_in(values: Values) -> Values:
    return [*values[:7], values[0], *values[7:]]


@pytest.mark.parametrize("rewrite", [change_one, change_a_key, leave_one_out, swap_two, put_one_in])
def test_a_rewritten_log_fails_at_the_first_record_that_differs(
    settings: Settings, rewrite: Callable[[Values], Values]
) -> None:
    true = decisions(COUNT)
    write(settings, rewrite(true))
    remember(settings, true)
    assert places(audit_consents(settings)) == [(0, 7)]


def test_a_log_that_was_cut_off_fails_at_its_end(settings: Settings) -> None:
    true = decisions(COUNT)
    write(settings, true[:9])
    remember(settings, true)
    assert places(audit_consents(settings)) == [(0, 9)]
    with pytest.raises(StoreRefused, match="ends at offset 9, but the ledger has it up to 12"):
        step(settings)


def test_whoever_rewrites_the_ledger_too_fails_at_the_signed_heads(settings: Settings) -> None:
    true = decisions(COUNT)
    rewritten = change_one(true)
    write(settings, rewritten)
    remember(settings, true)
    with connect(settings) as client:
        client.command("TRUNCATE TABLE consent_chain")
    remember(settings, rewritten, signed=())
    (difference,) = audit_consents(settings).differences
    assert difference.offset == 5
    assert difference.what == "records from here until 12 are not as signed"


def test_heads_that_another_key_signed_or_nobody_are_refused(settings: Settings) -> None:
    true = decisions(COUNT)
    write(settings, true)
    remember(settings, true, signed=())
    store, stranger = ChainStore(settings), Signer(b"s" * 32)
    head = store.newest(0)
    statement = statement_of(store.topic, store.generation, 0, head, NOW_MS)
    signed = SignedHead(head, NOW_MS, stranger.public_key, stranger.sign(statement))
    store.add_signed({0: signed})
    ours = signer_of(settings)
    assert ours is not None
    assert places(audit_consents(settings)) == [(0, COUNT)]
    with connect(settings) as client:
        client.command("TRUNCATE TABLE consent_heads")
    store.add_signed({0: replace(signed, public_key=ours.public_key)})
    assert places(audit_consents(settings)) == [(0, COUNT)]
    store.close()


def test_the_chain_goes_on_where_it_ended_also_after_clickhouse_went_back(
    settings: Settings,
) -> None:
    values = decisions(COUNT)
    write(settings, values[:5])
    assert step(settings) == 5
    write(settings, values[5:])
    assert step(settings) == COUNT - 5
    with connect(settings) as client:
        client.command("DELETE FROM consent_chain WHERE off >= 3")
    assert step(settings) == COUNT - 3
    audit = audit_consents(settings)
    assert audit.differences == []
    assert audit.partitions[0].chained == COUNT


def test_heads_are_signed_once_a_day_and_only_if_there_is_news(settings: Settings) -> None:
    def signed() -> list[int]:
        store = ChainStore(settings)
        try:
            return [each.head.next_offset for each in store.signed(0)]
        finally:
            store.close()

    values = decisions(COUNT)
    step(settings)
    assert signed() == []
    write(settings, values[:4])
    step(settings)
    assert signed() == [4]
    write(settings, values[4:])
    step(settings, NOW_MS + 1_000)
    assert signed() == [4]
    step(settings, NOW_MS + DAY_MS)
    step(settings, NOW_MS + 2 * DAY_MS)
    assert signed() == [4, COUNT]
    assert audit_consents(settings).differences == []


def test_the_command_tells_the_verdict_and_its_exit_code(
    settings: Settings, tmp_path: Path
) -> None:
    config = tmp_path / "headwater.json"
    config.write_text(json.dumps(settings.model_dump(mode="json")))
    true = decisions(COUNT)
    write(settings, change_one(true))
    remember(settings, true)
    failed = CliRunner().invoke(app, ["consent", "audit", "--config", str(config)])
    assert failed.exit_code == 1
    assert "[0]@7: this record, or one before it, is not as it was chained" in failed.output
    with connect(settings) as client:
        client.command("TRUNCATE TABLE consent_chain")
        client.command("TRUNCATE TABLE consent_heads")
    step(settings)
    held = CliRunner().invoke(app, ["consent", "audit", "--json", "--config", str(config)])
    assert held.exit_code == 0, held.output
    assert json.loads(held.output)["holds"] is True


def test_an_audit_without_the_key_says_which_setting(settings: Settings) -> None:
    consent = settings.consent.model_copy(update={"signing_key_file": ""})
    with pytest.raises(SettingInvalid, match=r"\[consent\] signing_key_file"):
        audit_consents(settings.model_copy(update={"consent": consent}))
