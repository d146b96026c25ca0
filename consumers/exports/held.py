"""Of whom is an export, under which pids?"""

from dataclasses import dataclass, field

from runtime.sealing import IdType, Person
from schemas.subjects import Subject


@dataclass(slots=True)
class Held:
    """What was found of a person under one pid before the export begins. `others` are the same of
    each other pid that is hers; `names` has the subject of each, `uses` what each record is for."""

    subject: str
    person: Person
    identifier: tuple[IdType, str]
    known: Subject | None
    uses: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)
    others: list["Held"] = field(default_factory=list)

    @property
    def each(self) -> list["Held"]:
        """All of them."""
        return [self, *self.others]
