"""How does a value become unreadable to everyone without its person's key?

Each person has an own data key (AES-256-GCM). It is stored only wrapped by the key-encryption key,
which lives in a file outside the store; so a stolen store opens nothing, and destroying one row
makes every copy of that person's values, backups included, unreadable. The pepper, a second secret
in a file, keys every hash: without it nobody can test guessed identifiers against the store.
"""

import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.settings import Settings
from schemas.errors import SettingInvalid, StoreRefused

IdType = Literal["user", "anonymous", "email", "phone"]
PID_BYTES = 16
ERASURE_ID_BYTES = 16
KEY_BYTES = 32
KEY_VERSION = 1
_NONCE_BYTES = 12
_SECRET = re.compile(r"[0-9a-fA-F]{64}\s*", re.ASCII)
_IDENTIFIER = b"identifier"


class Person:
    """One person's pid and, behind `seal` and `unseal`, their data key.

    What happened at `erased_before_ms` or earlier belongs to a past that was erased, under another
    pid: it must not be taken in under this one. 0 for most.
    """

    __slots__ = ("_cipher", "erased_before_ms", "key_version", "pid")

    def __init__(self, pid: bytes, data_key: bytes, key_version: int = KEY_VERSION) -> None:
        self.pid = pid
        self.key_version = key_version
        self.erased_before_ms = 0
        self._cipher = AESGCM(data_key)

    def seal(self, plain: bytes, event_id: bytes) -> bytes:
        """`plain` as nonce and ciphertext, bound to this person and this event."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, self.pid + event_id)

    def unseal(self, sealed: bytes, event_id: bytes) -> bytes:
        """What `seal` was given. Raises StoreRefused if a byte, person or event is another."""
        return _open(self._cipher, sealed, self.pid + event_id)

    def seal_identifier(self, framed: bytes) -> bytes:
        """The external identifier, for the vault's own row."""
        return self.seal(framed, _IDENTIFIER)

    def unseal_identifier(self, sealed: bytes) -> bytes:
        """What `seal_identifier` was given."""
        return self.unseal(sealed, _IDENTIFIER)

    def __repr__(self) -> str:
        return f"Person({self.pid.hex()})"


class KeyRing:
    """The two secrets at work: wraps data keys, hashes identifiers."""

    def __init__(self, kek: bytes, pepper: bytes) -> None:
        self._wrapper = AESGCM(kek)
        self._pepper = pepper

    def hash_of(self, id_type: IdType, external_id: str) -> str:
        """HMAC-SHA256 of the identifier in hex: the name of its row."""
        return hmac.digest(self._pepper, frame(id_type, external_id), "sha256").hex()

    def erasure_id_of(self, pid: bytes) -> bytes:
        """The id of this pid's one erasure, which tells nothing of the pid."""
        return hmac.digest(self._pepper, b"erasure|" + pid, "sha256")[:ERASURE_ID_BYTES]

    def new_person(self) -> tuple[Person, bytes]:
        """A person nobody has yet, with the wrapped data key: 60 bytes."""
        pid, data_key = os.urandom(PID_BYTES), AESGCM.generate_key(256)
        nonce = os.urandom(_NONCE_BYTES)
        return Person(pid, data_key), nonce + self._wrapper.encrypt(nonce, data_key, pid)

    def person(self, pid: bytes, wrapped: bytes) -> Person:
        """The person of a row. Raises StoreRefused if this key-encryption key did not wrap it."""
        return Person(pid, _open(self._wrapper, wrapped, pid))

    def __repr__(self) -> str:
        return "KeyRing(...)"


def frame(id_type: IdType, external_id: str) -> bytes:
    """One byte string an identifier, and one identifier a byte string: no type holds a '|'."""
    return f"{id_type}|{external_id}".encode()


def unframe(framed: bytes) -> tuple[str, str]:
    """What `frame` was given."""
    id_type, _, external_id = framed.decode().partition("|")
    return id_type, external_id


def load_secret(path: Path, setting: str) -> bytes:
    """The 32 bytes in the file. Raises SettingInvalid naming `setting`, never showing content."""
    try:
        text = path.read_text("ascii")
    except OSError as error:
        raise SettingInvalid(f"{setting}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        text = ""
    if not _SECRET.fullmatch(text):
        raise SettingInvalid(
            f"{setting}: {path} must hold 64 hexadecimal characters (32 bytes); "
            "make one with: openssl rand -hex 32"
        )
    return bytes.fromhex(text.strip())


def secrets_of(settings: Settings) -> tuple[bytes, bytes]:
    """Key-encryption key and pepper, 32 bytes each. Raises SettingInvalid naming the setting."""
    loaded = []
    for name in ("key_encryption_key_file", "pepper_file"):
        chosen = getattr(settings.vault, name)
        where = f"[vault] {name}"
        if not chosen:
            raise SettingInvalid(
                f"{where} is not set; name a file of 64 hexadecimal characters in headwater.toml "
                f"or HEADWATER_VAULT_{name.upper()}"
            )
        loaded.append(load_secret(Path(chosen), where))
    return loaded[0], loaded[1]


def make_secret(path: Path) -> None:
    """The file exists with a fresh secret, readable by its owner only; an old one is kept.

    Whole or absent: a crash in between leaves no half secret, which would lose every key.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # unlike a rename it refuses to replace what another one made
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        fresh.unlink()


def _open(cipher: AESGCM, sealed: bytes, bound_to: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError):
        raise StoreRefused(
            "a sealed value does not open: it was changed, or belongs to another person, event or "
            "key-encryption key; check [vault] key_encryption_key_file"
        ) from None
