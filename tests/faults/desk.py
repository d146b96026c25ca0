"""What do people do by hand while calls flow: link, revoke, and define segments anew?

Through the API and onto the log, again and again until it is known to be done, and written into the
history. Of a decision that was sent more than once, an earlier sending may still take effect later:
neither identifier is decided about again in that run.
"""

import json
import random
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime.segment_log import apply_segments
from runtime.vault import Vault
from schemas.errors import StoreUnavailable
from schemas.segments import parse_segments
from tests.faults.asking import ask, tries
from tests.faults.people_loads import segments
from tests.faults.rig import Rig

AGAIN_AFTER_S = 0.2
DECIDES_EVERY_S = 0.25
DEFINES_EVERY_S = 3.0

Write = Callable[[dict[str, Any]], None]


@dataclass
class Desk:
    """People of one run who decide by hand."""

    rig: Rig
    run: str
    seed: int
    write: Write
    """Adds a line to the history."""
    _frozen: set[str] = field(default_factory=set)
    _number: int = 0

    def decide(self, claims: list[list[str]], is_over: Callable[[], bool]) -> None:
        """Link and revoke identifiers of `claims`, which grows, until it `is_over`."""
        chance = random.Random(self.seed + 2)
        while not is_over():
            time.sleep(DECIDES_EVERY_S)
            if not claims:
                continue
            of, other = chance.choice(claims[-60:])[:2], chance.choice(claims[-60:])[:2]
            action = "revoke" if chance.random() < 0.6 else "link"
            one, two = of if action == "revoke" or chance.random() < 0.5 else (of[0], other[1])
            # Shoppers are left alone: whose cart it is must be known.
            if one != two and not {one, two} & self._frozen and not _is_shopper(one, two):
                self._decide(one, two, action)

    def _decide(self, one: str, two: str, action: str) -> None:
        body = {"subject": one, "of": two, "action": action, "reason": "other"}
        request = urllib.request.Request(
            f"{self.rig.api_url}/v1/identities/links",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.rig.settings.http.keys['admin']}",
                "Content-Type": "application/json",
            },
        )
        attempts = ask(request, AGAIN_AFTER_S)
        if attempts != 1:
            self._frozen |= {one, two}
        self._number += 1
        fate = "acknowledged" if attempts > 0 else "unknown"
        names = {"one_person": [one, two], "how": action, "number": self._number}
        self.write({"via": "desk", "outcome": fate, "attempts": abs(attempts), **names})

    def define(self, is_over: Callable[[], bool]) -> None:
        """Apply definitions of segments, and others after a while, until it `is_over`."""
        chance = random.Random(self.seed + 3)
        version = 0
        next_s = 0.0
        while version == 0 or not is_over():
            if time.monotonic() < next_s:
                time.sleep(0.05)
                continue
            definitions = segments(version, self.run, chance)
            self.write({"via": "segments", "outcome": "begun", "definitions": definitions})
            for _ in tries(AGAIN_AFTER_S):
                try:
                    apply_segments(self.rig.settings, parse_segments(definitions))
                except StoreUnavailable:
                    continue
                self.write({"via": "segments", "outcome": "acknowledged"})
                break
            version += 1
            next_s = time.monotonic() + DEFINES_EVERY_S


def _is_shopper(*names: str) -> bool:
    return any(name.rpartition("/")[2][:1] in "sd" for name in names)


def pids_of(rig: Rig, names: set[str]) -> dict[str, str]:
    """Under which pid, in hex, each of these identifiers is known, if it is."""
    vault = Vault.from_settings(rig.settings)
    try:
        found = {}
        for name in sorted(names):
            person = vault.lookup(*name.split(":", 1))  # type: ignore[arg-type]
            if person is not None:
                found[name] = person.pid.hex()
        return found
    finally:
        vault.close()
