"""How does a client of a Headwater that is being hurt go on asking?

As an SDK does: the same request again while there is no answer, or one that says to come back; any
other refusal is a finding.
"""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

ANSWER_WITHIN_S = 20.0
GIVES_UP_AFTER_S = 150.0
_COME_BACK = (429, 500, 503)


def tries(again_after_s: float) -> Iterator[int]:
    """1, 2, ... with a pause between, until it is time to give up."""
    give_up_at = time.monotonic() + GIVES_UP_AFTER_S
    number = 1
    yield number
    while time.monotonic() <= give_up_at:
        time.sleep(again_after_s)
        number += 1
        yield number


def ask(request: urllib.request.Request, again_after_s: float) -> int:
    """How many times it was sent until the answer was 200; negative when it never was."""
    sent = 0
    for sent in tries(again_after_s):
        if _is_answered(request):
            return sent
    return -sent


def _is_answered(request: urllib.request.Request) -> bool:
    """True for 200, False where asking again may help. Raises HTTPError for any other refusal."""
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code in _COME_BACK:
            return False
        raise
    except (OSError, http.client.HTTPException):
        return False
