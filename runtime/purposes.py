"""For which purposes are data used, on which legal basis, and who answers for it?

Those that `[purposes.*]` declares, and two that no configuration can take away: to run the system,
and to account for what it does. A purpose that nobody declared has no legal basis.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.settings import Settings
from schemas.consent import Basis
from schemas.held import OWN_PURPOSES

UNDECLARED = "not declared"


@dataclass(frozen=True, slots=True)
class InForce:
    """One purpose; `owner` is empty and `recipients` has nobody where none is configured."""

    basis: str
    owner: str
    recipients: tuple[str, ...]


def purposes_in_force(settings: Settings) -> dict[str, InForce]:
    """Every purpose by its name."""
    own = {name: InForce(basis, "", ()) for name, basis in OWN_PURPOSES.items()}
    return own | {
        name: InForce(declared.basis, declared.owner, declared.recipients)
        for name, declared in settings.purposes.items()
    }


def basis_of(settings: Settings, name: str) -> Basis:
    """By which decisions on a purpose are judged. One that nobody declared has no legal basis at
    all: then only a yes allows it."""
    declared = settings.purposes.get(name)
    return declared.basis if declared is not None else "consent"


def explain(names: Iterable[str], known: Mapping[str, InForce]) -> list[dict[str, object]]:
    """Purposes as they are shown to people and programs."""
    return [
        {
            "purpose": name,
            "legal_basis": found.basis if (found := known.get(name)) else UNDECLARED,
            "owner": found.owner if found else "",
            "recipients": list(found.recipients) if found else [],
        }
        for name in names
    ]
