"""Does a message say what its template says, and nothing that a template must not?"""

from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.messages.templates_of_messages import TemplateFault, Templates
from consumers.rules.cart_view import decimal_of, view_cart
from runtime.settings import Settings
from runtime.settings_sending import Smtp
from runtime.smtp import address_of, sender_of, write_mail
from schemas.carts import CartLine
from schemas.errors import SettingInvalid
from tests.mailing import due_of

LINKS = {"unsubscribe_url": "https://s.example/u", "preferences_url": "https://s.example/p"}
KNOWN: dict[str, Any] = {"step": 1, "journey": "cart", "campaign_id": "c", "person": {}, **LINKS}


def templates(directory: Path, **parts: str) -> Templates:
    for part, text in parts.items():
        (directory / f"own.{part}").write_text(text)
    return Templates(Settings.model_validate({"sending": {"templates_dir": str(directory)}}))


def rendered(directory: Path, **parts: str) -> Any:
    given = {"subject": "s", "txt": "t", "html": "h"} | parts
    return templates(directory, **given).render("own", KNOWN)


def mail_to(to: Address, **changes: Any) -> EmailMessage:
    said: dict[str, Any] = {
        "sender": address_of("shop@example.com"), "subject": "s", "text": "ž", "html": "<p>ž</p>", "message_id": "ab" * 16,
        "at": datetime(2026, 1, 1, tzinfo=UTC), "headers": {},
    }  # fmt: skip
    return write_mail(to=to, **(said | changes))


def test_html_is_escaped_and_text_is_not(tmp_path: Path) -> None:
    said = rendered(tmp_path, txt="{{ '<b>&' }}", html="{{ '<b>&' }}", subject="a\r\nBcc: b\n & c")
    assert (said.text, said.html) == ("<b>&", "&lt;b&gt;&amp;")
    # One line, so that it begins no header.
    assert said.subject == "a Bcc: b & c"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ nothing }}", "own.txt: UndefinedError"),
        ("{{ step.nothing }}", "own.txt: UndefinedError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "own.txt: SecurityError"),
        ("{{ cycler.__init__.__globals__ }}", "own.txt: SecurityError"),
        ("{% for n in range(10000000) %}{% endfor %}", "own.txt: OverflowError"),
        ("a\n{% if step %}", "own.txt: line 2: Unexpected end of template."),
        ("{{ 1 / 0 }}", "own.txt: ZeroDivisionError"),
        ("{{ 'a' * 600000 }}", "own.txt: longer than 500000 characters"),
        ("{% include 'other' %}", "own.txt: TemplateNotFound"),
    ],
)
def test_a_fault_of_a_template_says_where_it_is(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(TemplateFault) as found:
        rendered(tmp_path, txt=text)
    assert found.value.reason.startswith(reason)


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateFault, match=r"own.html: there is no such template"):
        templates(tmp_path, subject="s", txt="t").check("own")
    for name in ("../own", "", "a b", "own.txt"):
        with pytest.raises(TemplateFault):
            templates(tmp_path).check(name)
    with pytest.raises(SettingInvalid, match="templates_dir"):
        templates(tmp_path / "nowhere")


def test_the_shipped_cart_shows_lines_and_totals_without_what_is_not_known() -> None:
    bare = CartLine("p2", "", "", "", "javascript:alert(1)", "", 1, None, "")
    due = due_of(bytes(16), 0)
    cart = view_cart(due_of(bytes(16), 0, lines=[*due.lines, bare]))
    said = Templates(Settings()).render(
        "cart", KNOWN | {"cart": cart, "person": {"first_name": ""}}
    )
    assert said.subject == "You left something in your cart"
    assert said.text.startswith("Hello,\n\nthis is still in your cart:\n")
    assert (
        "- 2 x Kávovar <b>& mlýnek</b> (red), 2499.00 CZK\n  https://shop.example/p1\n" in said.text
    )
    assert "- 1 x p2\n" in said.text and "Total: 2499.00 CZK" in said.text
    assert "javascript" not in said.html and 'href="https://shop.example/p1"' in said.html


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0.00"), (1_990_000, "1.99"), (100_000_000_000, "100000.00"), (1_234_567, "1.234567")],
)
def test_amounts_have_two_places_or_as_many_as_it_takes(micro: int, text: str) -> None:
    assert decimal_of(micro) == text


def test_a_long_link_in_a_header_stays_in_one_piece() -> None:
    to = address_of("Jana@Příklad.cz")
    assert to is not None
    link = f"<https://shop.example/consent/unsubscribe/{'Ab-_' * 60}>"
    mail = mail_to(
        to,
        subject="Ahoj\nBcc: \0everybody@example.com\x7f",
        headers={"List-Unsubscribe": link, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
    )
    raw = mail.as_bytes()
    assert b"List-Unsubscribe: " + link.encode() + b"\r\n" in raw
    found = message_from_bytes(raw, policy=default)
    assert found["Subject"] == "Ahoj Bcc: everybody@example.com" and found["Bcc"] is None
    assert found["To"] == "Jana@xn--pklad-zsa96e.cz"
    # A server need not take more (RFC 5321 2.4, 4.5.3.1.6), nor need those after it.
    assert max(raw) < 128 and all(len(line) <= 998 for line in raw.split(b"\r\n"))


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "@b.cz", "a@", "a b@c.cz", "a@b.cz\nBcc: c@d.cz", "žofie@b.cz", 7, None, "a" * 400,
        # Each of these once ended the process that asked.
        "a@ [", "'@[ \u200d", "a@[<]", "a@[", "a@[b", '"\t"@b.cz', "a\x00@b.cz", "a\ud800@b.cz",
        "a@b\ud800.cz", "a@[127.0.0.1]", "a@b..cz", "a@b.cz.", "a.@b.cz", "a@b c.cz", "a@b(c).cz",
        # What one standard drops another one keeps: two names of DNS, of two owners.
        "a@b\u200dc.cz",
    ],
)  # fmt: skip
def test_what_is_no_address_gets_no_mail(text: object) -> None:
    assert address_of(text) is None


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (" Jana.Nov+cart@Shop.CZ ", "Jana.Nov+cart@Shop.CZ"),
        ("o'neil_/=?{}@x-y.example", "o'neil_/=?{}@x-y.example"),
        ("a@localhost", "a@localhost"),
        ("a@MÜLLER.de", "a@xn--mller-kva.de"),
        ("a@例え。テスト", "a@xn--r8jz45g.xn--zckzah"),
        # strasse.de is somebody else's (IDNA 2008, RFC 5891).
        ("a@Straße.de", "a@xn--strae-oqa.de"),
        ("a@ΒΌΛΟς.gr", "a@xn--nxasmm1c.gr"),
    ],
)
def test_a_domain_is_written_as_dns_has_it(text: str, spec: str) -> None:
    found = address_of(text)
    assert found is not None and found.addr_spec == spec


@pytest.mark.parametrize(
    "name",
    [
        "Shop",
        '"Shop, Ltd. (CZ)"',
        '"Müller, Söhne"',
        '"Obchod s velmi dlouhým jménem, který je opravdu dlouhý; a.s. <other@x.cz>"',
        "A very long name without any of the characters that mean something in an address of a mail",
    ],
)
def test_whom_a_mail_is_from_is_one_sender_whatever_they_are_called(name: str) -> None:
    sender = sender_of(Smtp(from_address=f"{name} <shop@example.com>"))
    raw = mail_to(sender, sender=sender).as_bytes()
    (found,) = message_from_bytes(raw, policy=default)["From"].addresses
    assert found.addr_spec == "shop@example.com"


def test_a_name_that_would_part_its_address_in_two_stops_the_start() -> None:
    name = f"A very long name, Ltd. of a {'very ' * 10} long kind of shop"
    with pytest.raises(SettingInvalid, match="expected a shorter name"):
        sender_of(Smtp(from_address=f'"{name}" <shop@example.com>'))


@given(st.text(max_size=12), st.text('ab.-@[]<>()\\" \t\x00žß\u200d', max_size=12))
def test_whatever_a_person_calls_their_address_a_mail_to_it_can_be_written(
    local: str, domain: str
) -> None:
    to = address_of(f"{local}@{domain}")
    if to is not None:
        (back,) = message_from_bytes(mail_to(to).as_bytes(), policy=default)["To"].addresses
        assert back.addr_spec == to.addr_spec
