"""Is a replay exact when everything around it, and it itself, is killed in the middle?

Each victim gets SIGKILL while rows are acknowledged and on their way: first the parts, then the
supervisor with the replay. The same command then sends the file again, and more parts are killed.
The order comes from a seed, which the test prints; HEADWATER_TEST_SEED repeats one.
"""

import os
import random
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from tests.cdnow import add_up, cdnow_file, expect_counters, expect_profiles, replay_command
from tests.conftest import Say
from tests.up import ROOT, Up, wait_for_what_is_under_way

ROWS = 15_000
PROFILES = 1_000
EVERYTHING = "up and the replay"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    config = tmp_path / "headwater.toml"
    config.write_text("[kafka]\npartitions = 2\n")
    house = Up(tmp_path / "data", config)
    house.start()
    yield house
    if house.process is not None and house.process.poll() is None:
        house.end()


@dataclass(frozen=True)
class Replay:
    """A replay in a process of its own, which tells every tenth of the file."""

    process: "subprocess.Popen[str]"

    @classmethod
    def begin(cls, up: Up, file: Path) -> "Replay":
        return cls(
            subprocess.Popen(
                replay_command(up, file),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )
        )

    def wait_for_a_tenth(self) -> None:
        """So much of the file is acknowledged, and some of it is on its way."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "rows sent" in line, line

    def finish(self) -> str:
        """What it says at its end. Fails unless it ends well."""
        output, _ = self.process.communicate(timeout=180)
        assert self.process.returncode == 0, output
        return output

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def kill_in_turn(up: Up, running: Replay, victims: Sequence[str]) -> None:
    for victim in victims:
        running.wait_for_a_tenth()
        assert running.process.poll() is None, "it was over before the kill"
        if victim == EVERYTHING:
            running.kill()
            assert up.end(signal.SIGKILL) == -signal.SIGKILL
        else:
            os.kill(up.await_child(victim), signal.SIGKILL)


@pytest.mark.apache
def test_replay_killed_in_the_middle_and_sent_again_is_exact(
    up: Up, tmp_path: Path, say: Say
) -> None:
    file = tmp_path / "purchases.txt"
    with cdnow_file().open("rb") as whole:
        file.write_bytes(b"".join(islice(whole, ROWS + 1)))
    truth = add_up(file)
    assert truth.orders == ROWS
    seed = int(os.environ.get("HEADWATER_TEST_SEED", random.SystemRandom().randrange(10**6)))
    chance = random.Random(seed)
    victims = chance.sample(sorted(up.children()), k=len(up.children()))
    half = len(victims) // 2 + 1
    first, second = [*victims[:half], EVERYTHING], victims[half:]
    say(f"seed {seed}: {', '.join(first)}; again: {', '.join(second)}")

    killed = Replay.begin(up, file)
    kill_in_turn(up, killed, first)
    up.start()
    again = Replay.begin(up, file)
    kill_in_turn(up, again, second)
    assert f"Sent {ROWS:,} rows" in again.finish()
    wait_for_what_is_under_way(up)

    expect_counters(up, truth)
    expect_profiles(up, truth, chance.sample(sorted(truth.by_customer), PROFILES))
    assert up.verdict()["verified"] is True
