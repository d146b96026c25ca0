"""How does a route answer with what is JSON already, without a model in between?

The models of routes say what an answer looks like; making one of each answer only to write it out
again would cost more than the answer.
"""

import orjson
from fastapi import Response


def is_answerable(told: object) -> bool:
    """True if an answer may repeat what a body told. JSON can spell half a character (\\ud800),
    which no text in UTF-8 has (RFC 8259, section 8.2), and numbers of any length."""
    try:
        orjson.dumps(told)
    except TypeError:
        return False
    return True


def json_answer(answer: object) -> Response:
    """200 with `answer`, which orjson can write, as its body."""
    return Response(orjson.dumps(answer), media_type="application/json")
