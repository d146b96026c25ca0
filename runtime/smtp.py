"""How does a mail get to the server that delivers it, at most once?

Until the server has been given the text, nothing has been sent, and whatever failed may be tried
again. From then on only its answer says whether it took it: without one it may have, so the mail is
not sent again (RFC 5321 4.5.4.2 lets a server deliver what it could not acknowledge). The two are
told apart here.

Where encryption is asked for there is no connection without it: a server whose certificate does not
prove its name, or that offers no TLS, gets neither login nor mail.
"""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy, default
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, Literal

import idna
from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
)

from runtime.settings_sending import Smtp
from schemas.errors import SettingInvalid, StoreUnavailable

_PASSING = range(400, 500)
_PERMANENT = range(500, 600)
_NOBODY_THERE = frozenset({550, 551})
_ENHANCED = re.compile(r"(?:^|#)5\.(\d{1,3})\.(\d{1,3})\b", re.ASCII | re.MULTILINE)
_CONTROL = re.compile("[\0-\x1f\x7f]")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
Outcome = Literal["taken", "refused", "not_now", "in_doubt"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a mail: `refused` for good, `not_now` and not sent, or `in_doubt`. `code` is
    the server's last, 0 without one; `is_recipients` tells that nobody is there."""

    outcome: Outcome
    code: int = 0
    is_recipients: bool = False


class _Unfolded(EmailPolicy):
    """Leaves links in one piece: folded they would be encoded, and no client would know them."""

    def fold(self, name: str, value: Any) -> str:
        if name.lower().startswith("list-"):
            return f"{name}: {value}{self.linesep}"
        return str(super().fold(name, value))

    def fold_binary(self, name: str, value: Any) -> bytes:
        if name.lower().startswith("list-"):
            return self.fold(name, value).encode("ascii")
        return super().fold_binary(name, value)


# Seven bits: what a server must take who promised nothing more (RFC 5321 2.4).
POLICY = _Unfolded(linesep="\r\n", cte_type="7bit")


def write_mail(
    *,
    sender: Address,
    to: Address,
    subject: str,
    text: str,
    html: str,
    message_id: str,
    at: Any,
    headers: dict[str, str],
) -> EmailMessage:
    """A mail with a plain and an HTML part. `at` is an aware datetime; `headers` are put beside."""
    mail = EmailMessage(POLICY)
    mail["From"] = sender
    mail["To"] = to
    # A line break in a subject would begin a header, and no control character may be in one.
    mail["Subject"] = " ".join(_CONTROL.sub(" ", subject).split())
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = f"<{message_id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    for name, value in headers.items():
        mail[name] = value
    mail.set_content(text)
    mail.add_alternative(html, subtype="html")
    return mail


def address_of(text: object) -> Address | None:
    """The address that the text is, without quotes, comments or numbers of hosts (RFC 5321 4.1.2:
    Dot-string and Domain); None if it is none. A domain is written as DNS has it."""
    if not isinstance(text, str) or len(text) > 320:
        return None
    local, _, domain = text.strip().rpartition("@")
    # Looked at here: the parser of headers takes more than a mail may have, and fails at the rest.
    # Beyond ASCII every server on the way would have to take SMTPUTF8.
    if not _LOCAL.fullmatch(local):
        return None
    if not domain.isascii():
        try:
            # IDNA 2008: the standard before, which Python has, writes ss for a sharp s, and that is
            # another name, of another owner.
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    if not all(map(_LABEL.fullmatch, domain.split("."))):
        return None
    return Address(username=local, domain=domain)


class SmtpServer:
    """The server of `[smtp]`. Raises SettingInvalid for files that cannot be read."""

    def __init__(self, chosen: Smtp) -> None:
        self._chosen = chosen
        self.sender = sender_of(chosen)
        self._password = _password(chosen)
        # Made once: reading the authorities of a system takes longer than a mail.
        self._trusted = None if chosen.encryption == "none" else _trusted(chosen.ca_file)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Connection"]:
        """A connection that is ready to take a mail. Raises StoreUnavailable without one."""
        chosen = self._chosen
        client = SMTP(
            hostname=chosen.host,
            port=chosen.port,
            username=chosen.username or None,
            password=self._password or None,
            timeout=chosen.answer_within_s,
            use_tls=chosen.encryption == "tls",
            # True: without it there is no connection. None would be content with plain text.
            start_tls=chosen.encryption == "starttls",
            tls_context=self._trusted,
        )
        try:
            await client.connect()
        except (SMTPException, OSError, ValueError) as error:
            client.close()
            raise StoreUnavailable(_explain(error, chosen)) from None
        try:
            yield Connection(client)
        finally:
            try:
                await client.quit(timeout=1)
            except (SMTPException, OSError):
                client.close()


class Connection:
    """Takes one mail."""

    def __init__(self, client: SMTP) -> None:
        self._client = client

    async def send(self, mail: EmailMessage, sender: Address, to: Address) -> Answer:
        """What became of it. Raises nothing: whatever happens has its outcome."""
        client = self._client
        try:
            await client.mail(sender.addr_spec)
            await client.rcpt(to.addr_spec)
        except SMTPResponseException as error:
            # 421 and 4xx speak of a moment (RFC 5321 4.2.1).
            if error.code in _PERMANENT:
                is_recipients = isinstance(error, SMTPRecipientRefused) and _is_of_nobody(error)
                return Answer("refused", error.code, is_recipients)
            return Answer("not_now", error.code)
        except (SMTPException, OSError):
            return Answer("not_now")
        try:
            response = await client.data(mail.as_bytes())
        except SMTPDataError as error:
            if error.code in _PERMANENT:
                return Answer("refused", error.code)
            # Also of 251, say, which a server may mean as a yes: it has the text.
            return Answer("not_now" if error.code in _PASSING else "in_doubt", error.code)
        except (SMTPException, OSError):
            return Answer("in_doubt")
        return Answer("taken", response.code)


def _is_of_nobody(error: SMTPResponseException) -> bool:
    """True when the server refuses the recipient because nobody is there, not for what it thinks of
    us or for its own rules: those would be said of everybody, and pass once somebody mends them."""
    found = _ENHANCED.search(error.message)
    if found is None:
        return error.code in _NOBODY_THERE
    # RFC 3463: x.1 is about addresses, 7 and 8 of it the sender's; x.2.1 is a mailbox that is shut.
    subject, detail = map(int, found.groups())
    return (subject == 1 and detail not in (7, 8)) or (subject, detail) == (2, 1)


def sender_of(chosen: Smtp) -> Address:
    """Whom mails are from. Raises SettingInvalid."""
    name, spec = parseaddr(chosen.from_address)
    found = address_of(spec)
    if found is None:
        raise SettingInvalid(
            "[smtp] from_address: expected an address such as 'Shop <shop@example.com>' "
            "(or set HEADWATER_SMTP_FROM_ADDRESS)"
        )
    sender = Address(name, found.username, found.domain)
    if not _reads_back(sender):
        raise SettingInvalid(
            "[smtp] from_address: expected a shorter name, or one without commas, dots and "
            "parentheses (or set HEADWATER_SMTP_FROM_ADDRESS)"
        )
    return sender


def _reads_back(sender: Address) -> bool:
    """False for a name that a line does not hold: the library loses its quotes where it folds it
    (https://github.com/python/cpython/issues/80222), and its commas part addresses."""
    mail = EmailMessage(POLICY)
    mail["From"] = sender
    found: Any = message_from_bytes(mail.as_bytes(), policy=default)["From"]
    return [each.addr_spec for each in found.addresses] == [sender.addr_spec]


def _explain(error: Exception, chosen: Smtp) -> str:
    """What is wrong, and what to do. Not the error's text: it may quote the server, and that the
    login."""
    where = f"the mail server {chosen.host}:{chosen.port}"
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"{where} has a certificate that is not trusted ({cause.verify_message}): set [smtp] "
            "host to a name in it, or [smtp] ca_file to the authority that signed it"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"{where} speaks no TLS that we understand ({cause.reason}): set [smtp] encryption to "
            "starttls or tls, as that port expects"
        )
    if isinstance(error, SMTPAuthenticationError):
        return (
            f"{where} refuses the login (code {error.code}): correct [smtp] username, and what is "
            "in password_file"
        )
    if type(error) is SMTPException:  # the client's own: no STARTTLS there, or no way to log in
        return (
            f"{where} does not offer what is asked for: correct [smtp] port, encryption "
            f"({chosen.encryption}) or username"
        )
    return f"{where} does not answer as one ({type(error).__name__}); look at [smtp] host and port"


def _trusted(ca_file: str) -> ssl.SSLContext:
    """Checks certificates and the names in them, by the system's authorities or those of a file."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError):
        raise SettingInvalid(
            f"[smtp] ca_file: expected certificates in PEM, cannot read {ca_file}"
        ) from None


def _password(chosen: Smtp) -> str:
    if not chosen.username:
        return ""
    path = Path(chosen.password_file)
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise SettingInvalid(f"[smtp] password_file: cannot read {path}") from None
