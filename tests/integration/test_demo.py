"""Does the demo end by itself, with a verdict that can also be no?"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from producers.rules.shop_ledger import Ledger
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
BROKER = os.environ.get("HEADWATER_TEST_BROKER", "auto")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_KAFKA_EMBEDDED": BROKER}


def demo_command(data_dir: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "headwater", "demo", "--data-dir", str(data_dir)]
    return [*command, "--port", "0", *arguments]


def test_demo_compares_every_counter_and_ends(tmp_path: Path) -> None:
    ended = subprocess.run(
        demo_command(tmp_path, "--events", "3000", "--seed", "7"),
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "equals the shop's ledger" in ended.stdout
    assert "live = verified" in ended.stdout
    assert "/#key=" in ended.stdout
    assert "spring-sale" in ended.stdout
    assert list(tmp_path.iterdir()) == [], "what it made is removed when all went well"


def test_fast_clock_lives_through_four_days_and_compares_every_message(tmp_path: Path) -> None:
    ended = subprocess.run(
        # The seed's three customers meet quiet hours, both limits and an order over night.
        demo_command(tmp_path, "--fast-clock", "--events", "4", "--seed", "46"),
        capture_output=True,
        text=True,
        timeout=240,
        env=ENVIRONMENT,
    )
    said = ended.stdout
    assert ended.returncode == 0, said + ended.stderr
    for line in (
        "equals the shop's ledger",
        "live = verified",
        "1 left active_today as time passed",
        "(night at the customer's)",
        "not sent: bought meanwhile",
        "not sent: had one that day already",
        "not sent: had two that week already",
        "/outbox#key=",
    ):
        assert line in said, said
    assert list(tmp_path.iterdir()) == [], "what it made is removed when all went well"


def test_demo_without_a_number_of_events_goes_on_until_it_is_asked_to_stop(
    tmp_path: Path,
) -> None:
    log = tmp_path / "demo.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            demo_command(tmp_path / "data"), stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT
        )
    try:
        eventually(lambda: "Ctrl-C ends the demo" in log.read_text("utf-8"), within_s=240)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text("utf-8")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    assert "Traceback" not in log.read_text("utf-8")


def test_one_withheld_event_makes_the_ledger_differ_and_the_demo_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from headwater import demo
    from runtime.settings import Kafka, Settings

    note = Ledger.note
    left_out: list[Any] = []

    def forgetful(ledger: Ledger, told: Any) -> None:
        # The collector has a mail that the shop does not know of. (An order might be one of the two
        # that tell the same order_id, and leaving it out would change nothing.)
        is_mail = told.moment is not None and told.moment.name == "Email Sent"
        if is_mail and (not left_out or told.message_id in left_out):
            left_out.append(told.message_id)
            return
        note(ledger, told)

    monkeypatch.setattr(Ledger, "note", forgetful)
    # Longer than a busy machine takes between two writes of counters.
    monkeypatch.setattr(demo, "STILL_FOR_S", 5.0)
    settings = Settings(data_dir=str(tmp_path), kafka=Kafka(embedded=BROKER))
    settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": 0})})
    assert demo.run_demo(settings, events=1000, rate_per_s=None, seed=3) is False
    said = capsys.readouterr().out
    assert "sent: expected" in said
    assert "differ from the shop's ledger" in said
    assert "live = verified" in said
    assert "Data and logs are kept in" in said
