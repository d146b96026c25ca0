"""Does a mail server get neither login nor mail before it has proved its name, and do we say why?

A real server with certificates of a real authority, asked by the product's client.
"""

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.headerregistry import Address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from runtime.processes import free_ports
from runtime.settings_sending import Smtp
from runtime.smtp import SmtpServer, write_mail
from schemas.errors import SettingInvalid, StoreUnavailable
from tests.certificates import DAY, Authority
from tests.conftest import FreshName
from tests.mailing import office

PASSWORD = "kohoutí-zápasy-7"
TO = Address("", "jana", "example.com")


class Guarded:
    """A mail server: what it was told, and whether under TLS."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bool]] = []

    def authenticate(
        self, server: Any, session: Any, _: Any, mechanism: str, told: LoginPassword
    ) -> AuthResult:
        """The one who logs in knows the password."""
        self.heard.append(("login", session.ssl is not None))
        return AuthResult(success=told.password == PASSWORD.encode(), handled=False)

    async def handle_MAIL(  # noqa: N802
        self, _: Any, session: Any, envelope: Any, sender: str, __: Any
    ) -> str:
        self.heard.append(("mail", session.ssl is not None))
        envelope.mail_from = sender
        return "250 OK"

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:  # noqa: N802
        assert envelope.content
        return "250 OK"


@contextmanager
def guarded(
    encryption: str, context: ssl.SSLContext | None, *, has_login: bool = False
) -> Iterator[tuple[Guarded, int]]:
    """A server on a free port; without `context` it speaks no TLS."""
    guard = Guarded()
    (port,) = free_ports(1)
    options: dict[str, Any] = {"hostname": "localhost", "port": port}
    if context is not None:
        options["ssl_context" if encryption == "tls" else "tls_context"] = context
    if has_login:
        # Implicit TLS is none that aiosmtpd knows of: it would offer no login there.
        options |= {"authenticator": guard.authenticate, "auth_require_tls": False}
    controller = Controller(guard, **options)
    controller.start()
    try:
        yield guard, port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def smtp(directory: Path, port: int, authority: Authority | None, **changes: Any) -> Smtp:
    """Settings of a login there."""
    file = directory / "password"
    file.write_text(f"{changes.pop('password', PASSWORD)}\n")
    values = {
        "host": "localhost",
        "port": port,
        "username": "shop",
        "password_file": str(file),
        "from_address": "shop@example.com",
        "ca_file": str(authority.file) if authority is not None else "",
        "answer_within_s": 5,
    }
    return Smtp.model_validate(values | changes)


def send(chosen: Smtp) -> str:
    """The outcome of a mail, by a connection of its own."""

    async def run() -> str:
        server = SmtpServer(chosen)
        async with server.connected() as connection:
            mail = write_mail(
                sender=server.sender,
                to=TO,
                subject="Košík",
                text="t",
                html="<p>t</p>",
                message_id="1",
                at=datetime(2026, 9, 21, tzinfo=UTC),
                headers={},
            )
            return (await connection.send(mail, server.sender, TO)).outcome

    return asyncio.run(run())


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
def test_a_server_that_proves_its_name_gets_login_and_mail_under_tls(
    tmp_path: Path, authority: Authority, encryption: str
) -> None:
    context = authority.server_context("localhost")
    with guarded(encryption, context, has_login=True) as (guard, port):
        assert send(smtp(tmp_path, port, authority, encryption=encryption)) == "taken"
    assert [what for what, _ in guard.heard] == ["login", "mail"]
    if encryption == "starttls":
        assert all(was_under_tls for _, was_under_tls in guard.heard)


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
@pytest.mark.parametrize("wrong", ["authority", "name", "age"])
def test_a_server_with_a_wrong_certificate_gets_nothing_and_we_say_what_to_do(
    tmp_path: Path, authority: Authority, encryption: str, wrong: str
) -> None:
    name = "elsewhere.example" if wrong == "name" else "localhost"
    context = authority.server_context(name, valid_for=-DAY if wrong == "age" else DAY)
    trusted = None if wrong == "authority" else authority
    with guarded(encryption, context, has_login=True) as (guard, port):
        with pytest.raises(StoreUnavailable) as refused:
            send(smtp(tmp_path, port, trusted, encryption=encryption))
        assert guard.heard == []
    said = str(refused.value)
    assert f"localhost:{port}" in said and "[smtp] host" in said and "ca_file" in said
    reasons = {"authority": "issuer", "name": "Hostname mismatch", "age": "expired"}
    assert reasons[wrong] in said


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
def test_a_server_without_tls_gets_neither_login_nor_mail(
    tmp_path: Path, authority: Authority, encryption: str
) -> None:
    with guarded("none", None, has_login=True) as (guard, port):
        with pytest.raises(StoreUnavailable, match="encryption"):
            send(smtp(tmp_path, port, authority, encryption=encryption))
        assert guard.heard == []


def test_a_wrong_login_holds_a_message_and_no_word_of_it_is_written_anywhere(
    tmp_path: Path,
    authority: Authority,
    redis_url: str,
    redis_client: Any,
    fresh_name: FreshName,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with guarded("starttls", authority.server_context("localhost"), has_login=True) as (
        guard,
        port,
    ):
        wrong = "heslo-které-neplatí"
        chosen = smtp(tmp_path, port, authority, password=wrong).model_dump()
        consent = {"public_url": "https://shop.example"}
        name = fresh_name("login")
        with office(tmp_path, redis_url, redis_client, name, smtp=chosen, consent=consent) as post:
            message = post.schedule(post.person())
            post.work()
            held = post.last(message)
            assert (held.state, held.rule) == ("held", "channel_unavailable")
            assert held.values is not None
            said = str(held.values["what"])
            assert "refuses the login (code 535)" in said and "password_file" in said
            # Corrected, it goes.
            Path(chosen["password_file"]).write_text(PASSWORD)
            assert held.until_ms is not None
            post.clock.at_ms = held.until_ms
            post.work()
            assert post.last(message).state == "sent"
    assert [what for what, _ in guard.heard][-2:] == ["login", "mail"]
    written = "".join(capfd.readouterr()) + said
    assert wrong not in written and PASSWORD not in written


def test_an_authority_that_cannot_be_read_is_told_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    for file in (tmp_path / "ca", tmp_path / "none"):
        with pytest.raises(SettingInvalid, match="ca_file"):
            SmtpServer(smtp(tmp_path, 1, None, ca_file=str(file)))
