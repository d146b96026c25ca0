"""How does a list of decisions come in, also one that was bought, and which rows are refused?

Whoever takes over a list must be able to show for each person on it what they agreed to, when, how
and where (GDPR Art. 7(1)). So a row without source, time, method and version of the text is
refused, and its neighbours are not. A decision of a list is dated by the list: what is known to be
later stands, so that importing an old list again brings nobody back who left since.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumers.consents.api import NOBODY, Consenting, Recording, read_recording
from consumers.rules.consent_bodies import (
    ConsentBody,
    Misfit,
    missing_in_list,
    needs_guardian,
)
from runtime.access import Access
from runtime.answers import json_answer
from runtime.consent_desk import NeedsGuardian, Wanted
from runtime.problems import Problem

MOST_ROWS = 1000


class ListBody(BaseModel):
    """Decisions as POST /v1/consents takes them, each with its whole proof."""

    model_config = ConfigDict(extra="forbid")

    consents: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_ROWS)


class ListTaken(BaseModel):
    """Rows by what became of them; every refused one with its index and what is missing."""

    recorded: int
    unchanged: int
    refused: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row that can be taken, by its index."""

    index: int
    recording: Recording


Refused = dict[str, Any]
"""Index of a row, and what is missing."""


async def take_rows(consenting: Consenting, rows: Sequence[Row]) -> tuple[int, list[Refused]]:
    """Every row is in force, or something later is; how many were news, and whose yes was refused
    because it needs a guardian's.

    Raises StoreUnavailable or StoreRefused; then send the same again.
    """
    if not rows:
        return 0, []
    at_ms = consenting.clock()
    identifiers = list({(r.recording.id_type, r.recording.external_id): None for r in rows})
    pids = dict(zip(identifiers, await consenting.pids_of(identifiers), strict=True))
    wanted, indexes = [], []
    refused: list[Refused] = []
    for row in rows:
        pid = pids[row.recording.id_type, row.recording.external_id]
        want = Wanted(pid, row.recording.decision, "listed", at_ms)
        too_young = consenting.desk.refusal_of(want)
        if too_young is not None:
            refused.append(_refused(row.index, [needs_guardian(too_young.age_of_consent)]))
        elif pid != NOBODY:
            wanted.append(want)
            indexes.append(row.index)
    recorded = 0
    for index, outcome in zip(indexes, await consenting.desk.decide(wanted), strict=True):
        if isinstance(outcome, NeedsGuardian):
            refused.append(_refused(index, [needs_guardian(outcome.age_of_consent)]))
        else:
            recorded += outcome.is_new
    return recorded, refused


def read_rows(
    values: Sequence[dict[str, Any]], purposes: frozenset[str], now_ms: int
) -> tuple[list[Row], list[Refused]]:
    """The rows that can be taken, and of each other one what does not fit."""
    taken: list[Row] = []
    refused: list[Refused] = []
    for index, value in enumerate(values):
        try:
            body = ConsentBody.model_validate(value)
            faults = [*missing_in_list(body, now_ms)]
            recording = read_recording(body, purposes)
        except ValidationError as error:
            faults = list(_of_validation(error))
        except Problem as problem:
            faults += (Misfit(fault.path, fault.expected) for fault in problem.errors)
        if faults:
            refused.append(_refused(index, faults))
        else:
            taken.append(Row(index, recording))
    return taken, refused


def _refused(index: int, faults: Sequence[Misfit]) -> Refused:
    told = [{"path": fault.path, "expected": fault.expected} for fault in faults]
    return {"row": index, "errors": told}


def _of_validation(error: ValidationError) -> Iterator[Misfit]:
    for each in error.errors(include_url=False, include_input=False):
        yield Misfit("$" + "".join(f".{part}" for part in each["loc"]), str(each["msg"]))


def build_router(consenting: Consenting, access: Access) -> APIRouter:
    """`POST /v1/consents/lists`."""
    router = APIRouter(tags=["Consent"])
    purposes = frozenset(consenting.bases)

    @router.post(
        "/v1/consents/lists",
        responses={200: {"model": ListTaken}},
        response_class=Response,
        dependencies=[Depends(access.require("consent_desk"))],
        summary="Record a list of decisions, each with its proof",
    )
    async def post_list(body: Annotated[ListBody, ...]) -> Response:
        """200 once all that can be taken is in force; the others are named, row by row.

        A row needs `source`, `valid_from`, `proof.method` and `proof.text_version`. The same list
        sent again changes nothing, and no row undoes what is known to be later. A child's yes needs
        `proof.authorised_by` guardian.
        """
        rows, refused = read_rows(body.consents, purposes, consenting.clock())
        recorded, too_young = await take_rows(consenting, rows)
        answer = {
            "recorded": recorded,
            "unchanged": len(rows) - recorded - len(too_young),
            "refused": sorted((*refused, *too_young), key=lambda each: each["row"]),
        }
        return json_answer(answer)

    return router
