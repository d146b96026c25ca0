"""How does a privacy officer fetch everything that is held on one person?

From the running API, as any tool would: so it is written down who asked. The answer is written
while it comes; a file appears under its name only when it is whole, readable by its owner alone.
"""

import http.client
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from headwater.caller import refusal, url_of
from runtime.settings import Settings
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable

ANSWER_WITHIN_S = 120.0
FORMATS = ("json", "html")
_KINDS = ("user", "anonymous", "email", "phone")
_CHUNK = 65_536


def export_subject(settings: Settings, subject: str, form: str, output: Path | None) -> int:
    """The export is in `output`, or on standard output; its bytes.

    Raises SettingInvalid for a subject or format that is none, StoreRefused when nobody is known
    by it, StoreUnavailable when the API does not answer, or breaks off.
    """
    kind, _, external_id = subject.partition(":")
    if kind not in _KINDS or not external_id:
        raise SettingInvalid(
            "SUBJECT: expected user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
        )
    if form not in FORMATS:
        raise SettingInvalid(f"--format {form}: expected {' or '.join(FORMATS)}")
    path = f"/v1/subjects/{quote(subject, safe='')}/export?format={form}"
    chunks = _chunks(settings, path)
    if output is None:
        return _write(chunks, sys.stdout.buffer)
    partial = output.with_name(f"{output.name}.part")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise SettingInvalid(f"--output {output}: cannot write: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            size = _write(chunks, file)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return size


def _write(chunks: Iterator[bytes], file: BinaryIO) -> int:
    size = 0
    for chunk in chunks:
        file.write(chunk)
        size += len(chunk)
    file.flush()
    return size


def _chunks(settings: Settings, path: str) -> Iterator[bytes]:
    at = urlsplit(url_of(settings.http))
    connection = http.client.HTTPConnection(
        at.hostname or "127.0.0.1", at.port or 80, timeout=ANSWER_WITHIN_S
    )
    key = settings.http.keys.get("privacy_officer") or settings.http.keys.get("admin", "")
    try:
        connection.request("GET", path, None, {"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        if response.status == 503:
            raise StoreUnavailable("a server behind the API does not answer; ask headwater doctor")
        if response.status != 200:
            raise StoreRefused(refusal(response.status, response.read()))
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(
            f"the API at {at.netloc} did not answer, or broke off ({type(error).__name__}); "
            "nothing of it was kept, ask again"
        ) from error
    finally:
        connection.close()
