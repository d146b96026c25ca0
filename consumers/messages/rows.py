"""What does the row of a message look like, and a decision over it?"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson

from consumers.rules.messages import Decided, Kind, Message, State


def row_of(message: Message) -> list[Any]:
    """Pid, and then fields and values of the row."""
    fields = {
        "kind": message.kind,
        "source": message.source,
        "step": message.step,
        "channel": message.channel,
        "campaign": message.campaign_id,
        "due": message.due_at_ms,
        "repeat": int(message.may_repeat),
        "body": message.body,
    }
    return [message.pid.hex(), *(part for pair in fields.items() for part in pair)]


def message_in(id_: str, row: Sequence[bytes]) -> Message:
    """The message of a row as a script answers it: fields and values in turn."""
    return message_of(id_, dict(zip(row[::2], row[1::2], strict=True)))


def message_of(id_: str, row: Mapping[bytes, bytes]) -> Message:
    """The message of a row."""
    return Message(
        id_,
        bytes.fromhex(row[b"pid"].decode()),
        cast("Kind", row[b"kind"].decode()),
        row[b"source"].decode(),
        int(row[b"step"]),
        row[b"channel"].decode(),
        row[b"campaign"].decode(),
        int(row[b"due"]),
        row.get(b"body", b""),
        cast("State", row[b"state"].decode()),
        int(row.get(b"at", 0)),
        int(row.get(b"tries", 0)),
    )


def scheduled(message: Message, now_ms: int) -> bytes:
    """The first decision over a message."""
    return to_json(Decided(now_ms, "scheduled", values={"due_at_ms": message.due_at_ms}))


def to_json(decided: Decided) -> bytes:
    """A decision as it is kept."""
    # State and rule first: a script compares the beginning.
    return orjson.dumps(
        {
            "state": decided.state,
            "rule": decided.rule,
            "at_ms": decided.at_ms,
            "until_ms": decided.until_ms,
            "values": dict(decided.values or {}),
        }
    )


def decided_in(text: bytes) -> Decided:
    """What `to_json` was given."""
    found = orjson.loads(text)
    return Decided(
        found["at_ms"], found["state"], found["rule"], found["values"], found["until_ms"]
    )
