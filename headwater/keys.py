"""Which secrets does a first start make, and where are they kept?

Five kinds, all under the data directory and readable by its owner alone: an API key for each role
(docs: CONTRACT's roles), the pepper that keys the hashes of identifiers, the key-encryption key
that wraps every person's data key, and the keys that sign the ledger of consents and the
certificates of erasure. Whoever has the vault, the pepper and the key-encryption key can tell who
is who, so a production keeps them elsewhere and names the files in `[vault]`, `[consent]` and
`[erasure]`.
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from runtime.sealing import load_secret, make_secret
from runtime.settings import Http, Role, Settings, Source
from schemas.errors import SettingInvalid

_ROLES: tuple[Role, ...] = get_args(Role)
MADE_SOURCE = "default"
"""Name of the source whose write key is made when the configuration names no source."""


@dataclass(frozen=True, slots=True)
class Provided:
    """Settings with every secret in place, and what was made now for the first time."""

    settings: Settings
    made_keys: dict[Role, str]


def provide_keys(settings: Settings, data_dir: Path) -> Provided:
    """Fill in the keys and key files that the configuration leaves open.

    Made ones are durable before they are used, and the same at every later start. A configured one
    always wins. Raises SettingInvalid if a file of an earlier start can no longer be understood.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    known = _read_keys(data_dir / "keys.json")
    made: dict[Role, str] = {
        role: secrets.token_urlsafe(24)
        for role in _ROLES
        if role not in known and role not in settings.http.keys
    }
    if made:
        write_private(data_dir / "keys.json", json.dumps({**known, **made}, indent=2) + "\n")
    keys: dict[Role, str] = {**known, **made, **settings.http.keys}
    sources = settings.sources or (Source(name=MADE_SOURCE, write_key=keys["write"]),)
    keys["write"] = sources[0].write_key
    return Provided(
        settings.model_copy(
            update={
                "http": Http(**{**settings.http.model_dump(), "keys": keys}),
                "sources": sources,
                "vault": settings.vault.model_copy(update=_made_secrets(settings, data_dir)),
                "consent": settings.consent.model_copy(update=_made_ledger_key(settings, data_dir)),
                "erasure": settings.erasure.model_copy(
                    update=_made_signing_key(settings, data_dir)
                ),
            }
        ),
        made,
    )


def _made_secrets(settings: Settings, data_dir: Path) -> dict[str, str]:
    """The settings of `[vault]` that name no file, with one made under `data_dir`."""
    return {
        setting: _secret_file(
            data_dir / "secrets" / setting.removesuffix("_file"), "vault", setting
        )
        for setting in ("key_encryption_key_file", "pepper_file")
        if not getattr(settings.vault, setting)
    }


def _made_ledger_key(settings: Settings, data_dir: Path) -> dict[str, str]:
    """`[consent] signing_key_file` if it names no file, with one made under `data_dir`."""
    if settings.consent.signing_key_file:
        return {}
    path = data_dir / "secrets" / "consent_signing_key"
    return {"signing_key_file": _secret_file(path, "consent", "signing_key_file")}


def _made_signing_key(settings: Settings, data_dir: Path) -> dict[str, str]:
    """`[erasure] signing_key_file` if it names no file, with one made under `data_dir`."""
    if settings.erasure.signing_key_file:
        return {}
    path = data_dir / "secrets" / "erasure_signing_key"
    return {"signing_key_file": _secret_file(path, "erasure", "signing_key_file")}


def write_private(path: Path, text: str) -> None:
    """`path` holds `text` whole or is as it was, durable, and readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    part.replace(path)


def _read_keys(path: Path) -> dict[Role, str]:
    try:
        keys: object = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingInvalid(
            f"{path} is not valid JSON; restore it, or delete it to have new API keys made"
        ) from error
    if not isinstance(keys, dict):
        raise SettingInvalid(f"{path}: expected an object of role and key; restore or delete it")
    return {role: str(keys[role]) for role in _ROLES if role in keys}


def _secret_file(path: Path, section: str, setting: str) -> str:
    """The path of a file of 32 random bytes in hex, made if there is none.

    One that is there but empty or cut short is refused, never replaced: everything sealed under
    the lost one would stay unreadable.
    """
    make_secret(path)
    path.parent.chmod(0o700)
    load_secret(path, f"[{section}] {setting}")
    return str(path.absolute())
