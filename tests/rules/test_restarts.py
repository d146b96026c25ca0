"""Does a part that ends come back, sooner or later as it deserves?"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from headwater.supervision import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S, Restarts
from schemas.errors import StoreUnavailable


@dataclass
class FakePart:
    name: str = "streams"
    log_file: Path = Path("logs/streams.log")
    lives: bool = True
    starts: int = 0
    exit_code: int | None = 70

    cannot_start: bool = False

    def start(self) -> None:
        self.starts += 1
        if self.cannot_start:
            raise StoreUnavailable("no space left on device")
        self.lives = True

    def is_alive(self) -> bool:
        return self.lives


@dataclass
class Scene:
    """A part and its supervisor on a clock that only the test moves."""

    at_s: float = 0.0
    part: FakePart = field(default_factory=FakePart)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restarts = Restarts(self.said.append, now_s=lambda: self.at_s)

    def tend(self, *, later_s: float = 0.0) -> None:
        self.at_s += later_s
        self.restarts.tend(self.part)

    def seconds_until_started(self) -> float:
        """Let it end now, and wait until it is started again."""
        self.part.lives = False
        starts, ended_at_s = self.part.starts, self.at_s
        self.tend()
        while self.part.starts == starts:
            self.tend(later_s=0.1)
        return self.at_s - ended_at_s


def test_part_that_lives_is_left_alone() -> None:
    scene = Scene()
    for _ in range(100):
        scene.tend(later_s=1)
    assert (scene.part.starts, scene.said) == (0, [])


def test_part_that_ended_is_started_again_after_a_short_pause_and_one_line() -> None:
    scene = Scene()
    scene.tend()
    assert FIRST_PAUSE_S <= scene.seconds_until_started() < FIRST_PAUSE_S + 0.2
    assert scene.said == [
        "streams ended with exit code 70; starting it again in 0.2 s (see logs/streams.log)"
    ]


def test_pause_doubles_while_it_keeps_ending_up_to_a_limit() -> None:
    scene = Scene()
    scene.tend()
    pauses = [scene.seconds_until_started() for _ in range(12)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(pauses))
    assert LONGEST_PAUSE_S <= pauses[-1] < LONGEST_PAUSE_S + 0.2
    assert len(scene.said) == 12


def test_pause_is_short_again_once_it_ran_steadily() -> None:
    scene = Scene()
    scene.tend()
    for _ in range(6):
        scene.seconds_until_started()
    scene.tend(later_s=1)
    scene.tend(later_s=STEADY_AFTER_S)
    assert scene.seconds_until_started() < FIRST_PAUSE_S + 0.2


def test_signal_is_named() -> None:
    scene = Scene(part=FakePart(exit_code=-9))
    scene.tend()
    scene.seconds_until_started()
    assert scene.said[0].startswith("streams ended with signal 9;")


def test_part_that_cannot_even_be_started_is_tried_again_later() -> None:
    scene = Scene()
    scene.tend()
    scene.part.cannot_start = True
    first, second = scene.seconds_until_started(), scene.seconds_until_started()
    assert second > first
    assert "streams cannot be started: no space left on device" in scene.said
    scene.part.cannot_start = False
    scene.seconds_until_started()
    assert scene.part.lives
