"""What is a fault, and what does the machine need for it?"""

import importlib.util
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runtime import apache_kafka
from tests.faults.loads import PLAIN, Load
from tests.faults.namespaces import lacks_namespaces
from tests.faults.rig import Plan, Rig
from tests.mounting import lacks_mount

Do = Callable[[Rig, random.Random], int]
"""Hurts the rig, under load; returns when the fault is over, with how many faults it injected.

What it put to sleep or held down is awake and free again. What it killed need not be back: that is
what recovery means."""


@dataclass(frozen=True)
class Fault:
    """One kind of trouble, as the ledger names it."""

    name: str
    do: Do
    load: Load = PLAIN
    plan: Plan = field(default_factory=Plan)
    needs: tuple[str, ...] = ("apache",)
    """Names of NEEDS."""
    revision: int = 1
    """Raised when what it found was mended, or when it hurts otherwise: earlier runs do not count."""
    leaves_sound: bool = True
    """False: the rig is not used again after it."""


def _lacks_apache() -> str:
    tools = apache_kafka.look_for_tools()
    return "" if tools.is_enough else f"{tools.missing}"


def _lacks_root() -> str:
    return "" if os.geteuid() == 0 else "not root"


def _lacks_trial() -> str:
    return "" if importlib.util.find_spec("noida_db") else "no noida-db"


NEEDS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "apache": _lacks_apache,
        "root": _lacks_root,
        "trial": _lacks_trial,
        "mount": lacks_mount,
        "namespace": lacks_namespaces,
    }
)
"""What a fault may need -> says why the machine cannot give it, or nothing."""


def lacking(fault: Fault) -> str:
    """Why the fault cannot be done here; empty when it can."""
    return "; ".join(why for need in fault.needs if (why := NEEDS[need]()))
