"""How does automation die at one certain step of a message, as by kill -9?

`python -m tests.automation_worker SETTINGS POINT` is the role `automation` of the settings in that
file, whose process gets SIGKILL from itself at the point: the product knows nothing of it.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from consumers.messages.store import MessageStore
from headwater.automation import run_automation
from runtime.settings import Settings

POINTS = (
    "after sending was written",
    "before sent is written",
    "after the claim",
    "before the claim",
)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: str) -> None:
    """From now on this process does not get past that point with any message."""
    claim, begin, move = MessageStore.claim, MessageStore.begin, MessageStore.move

    def claim_or_die(self: MessageStore, *args: Any) -> Any:
        if point == POINTS[3] and self.next_wake_ms() is not None:
            _die()
        found = claim(self, *args)
        if found and point == POINTS[2]:
            _die()
        return found

    def begin_or_die(self: MessageStore, *args: Any, **more: Any) -> Any:
        answer = begin(self, *args, **more)
        if answer[0] == "sending" and point == POINTS[0]:
            _die()
        return answer

    def move_or_die(
        self: MessageStore, message: Any, owner: str, decided: Any, **more: Any
    ) -> bool:
        if decided.state == "sent" and point == POINTS[1]:
            _die()
        return move(self, message, owner, decided, **more)

    methods = {"claim": claim_or_die, "begin": begin_or_die, "move": move_or_die}
    for name, method in methods.items():
        setattr(MessageStore, name, method)


def main() -> None:
    """Work until the point is met."""
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    die_at(sys.argv[2])
    run_automation(settings, threading.Event(), member=settings.kafka.instance_id or None)


if __name__ == "__main__":
    main()
