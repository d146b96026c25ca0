"""Which time is it, for whom, and who may say so?"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.running import chosen_settings
from runtime.clock import SharedClock, follow, now_ms, real_ms
from schemas.errors import SettingInvalid

LONG_AGO_MS = 1_000_000_000_000


@pytest.fixture(autouse=True)
def _own_clock() -> Iterator[None]:
    yield
    follow("")


def test_without_a_shared_clock_the_house_goes_by_the_machine() -> None:
    before_ms = real_ms()
    assert before_ms <= now_ms() <= real_ms()


def test_whoever_follows_a_shared_clock_sees_it_put_forward_and_the_machine_goes_on(
    tmp_path: Path,
) -> None:
    clock = SharedClock(tmp_path / "clock", LONG_AGO_MS)
    follow(str(tmp_path / "clock"))
    assert now_ms() == clock() == LONG_AGO_MS
    clock.put_to(LONG_AGO_MS + 1)
    assert now_ms() == clock() == LONG_AGO_MS + 1
    assert real_ms() > LONG_AGO_MS + 1
    follow("")
    assert now_ms() > LONG_AGO_MS + 1


def test_shared_clock_is_never_put_back(tmp_path: Path) -> None:
    clock = SharedClock(tmp_path / "clock", LONG_AGO_MS)
    clock.put_to(LONG_AGO_MS)
    with pytest.raises(ValueError, match="never put back"):
        clock.put_to(LONG_AGO_MS - 1)
    assert clock() == LONG_AGO_MS


@pytest.mark.parametrize("content", [None, b"", b"now"])
def test_file_that_holds_no_clock_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "clock"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingInvalid, match=r"\[time\] clock_file"):
        follow(str(file))


def test_only_the_demo_may_set_a_shared_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text('[time]\nclock_file = "/clock"\n', "utf-8")
    with pytest.raises(SettingInvalid, match="only `headwater demo --fast-clock` sets it"):
        chosen_settings(file)
    monkeypatch.setenv("HEADWATER_TIME_CLOCK_FILE", "/clock")
    with pytest.raises(SettingInvalid, match="only `headwater demo --fast-clock` sets it"):
        chosen_settings(None)
