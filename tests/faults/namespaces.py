"""How is a role cut off from its servers by the network itself, in one direction?

The role runs in a network namespace of its own, joined to ours by a pair of virtual interfaces, and
meets every server at a proxy on our end. Packets of one direction are then sent to a hardware
address that nobody has: they are gone without a sign, as behind a broken switch, and TCP sends them
again when it sees fit. Needs root.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.faults.proxy import Way
from tests.faults.standing import Standing

NUMBER = os.getpid() % 16_384
NAME = f"headwater{NUMBER}"
OURS, THEIRS = f"hwours{NUMBER}", f"hwtheirs{NUMBER}"
# A network of four addresses of 10.192.0.0/10.
_NETWORK = (10 << 24) + (192 << 16) + 4 * NUMBER
NOBODY = "02:00:00:00:00:01"


def _address(number: int) -> str:
    return ".".join(str(_NETWORK + number >> shift & 255) for shift in (24, 16, 8, 0))


OUR_ADDRESS, THEIR_ADDRESS = _address(1), _address(2)
COMMAND = (shutil.which("ip") or "ip", "netns", "exec", NAME)
"""Before a command that is to run in the namespace."""


@cache
def lacks_namespaces() -> str:
    """Why there can be none here; empty when there can."""
    if not shutil.which("ip"):
        return "no ip of iproute2"
    try:
        make()
    except AssertionError:
        return "may not make a network namespace; be root"
    finally:
        remove()
    return ""


def make(_: Path | None = None) -> None:
    """The namespace is there and reaches OUR_ADDRESS."""
    _ip("netns", "add", NAME)
    _ip("link", "add", OURS, "type", "veth", "peer", "name", THEIRS, "netns", NAME)
    _ip("address", "add", f"{OUR_ADDRESS}/30", "dev", OURS)
    _ip("link", "set", OURS, "up")
    for device in ("lo", THEIRS):
        _ip("-n", NAME, "link", "set", device, "up")
    _ip("-n", NAME, "address", "add", f"{THEIR_ADDRESS}/30", "dev", THEIRS)


def remove(_: Path | None = None) -> None:
    """It is gone, with both interfaces."""
    subprocess.run(["ip", "netns", "delete", NAME], capture_output=True)
    subprocess.run(["ip", "link", "delete", OURS], capture_output=True)


def cut(way: Way) -> None:
    """Packets on this way reach nobody."""
    if way == "to server":
        _ip("-n", NAME, *_neighbour("replace", OUR_ADDRESS, THEIRS))
    else:
        _ip(*_neighbour("replace", THEIR_ADDRESS, OURS))


def heal(way: Way) -> None:
    """They arrive again, from the next try on."""
    if way == "to server":
        _ip("-n", NAME, *_neighbour("delete", OUR_ADDRESS, THEIRS))
    else:
        _ip(*_neighbour("delete", THEIR_ADDRESS, OURS))


def stand_at_our_end(upstream: str) -> Standing:
    """A started proxy before host:port that the namespace reaches."""
    host, _, port = upstream.rpartition(":")
    return Standing((host, int(port)), host=OUR_ADDRESS).start()


def _neighbour(verb: str, address: str, device: str) -> tuple[str, ...]:
    words = ("neighbour", verb, address, "dev", device)
    return (*words, "lladdr", NOBODY, "nud", "permanent") if verb == "replace" else words


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
