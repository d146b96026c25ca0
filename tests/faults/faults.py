"""Every fault, by the file of its kind."""

from collections.abc import Iterable

from tests.faults import (
    broker_faults,
    disk_faults,
    kill_faults,
    load_faults,
    network_faults,
    pause_faults,
    people_faults,
    store_faults,
)
from tests.faults.fault import Fault

_OF_ANY_LOAD = (
    *kill_faults.FAULTS,
    *pause_faults.FAULTS,
    *load_faults.FAULTS,
    *broker_faults.FAULTS,
    *network_faults.FAULTS,
    *store_faults.FAULTS,
    *disk_faults.FAULTS,
)
FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (*_OF_ANY_LOAD, *people_faults.of_people(_OF_ANY_LOAD))
}


def named(names: Iterable[str]) -> list[Fault]:
    """The faults whose names contain one of `names`; all of them for none. Raises KeyError."""
    wanted = list(names)
    found = [fault for name, fault in FAULTS.items() if not wanted or name in wanted]
    if not found:
        found = [fault for name, fault in FAULTS.items() if any(part in name for part in wanted)]
    if not found:
        raise KeyError(f"no fault is named {', '.join(wanted)}; there are {', '.join(FAULTS)}")
    return found
