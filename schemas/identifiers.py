"""When do two spellings name one telephone, or one mailbox?

People write one number in many ways: with spaces, with dashes, with 00 or + before the country.
What is compared is the number as ITU-T E.164 has it, digits alone behind a + where the country is
told. One without a country stays without: the same digits are somebody else's abroad, so nothing
is added by guess.

Mailboxes are told apart by upper and lower case nowhere, and one letter with an accent may be
written as one character or as two (RFC 6532 asks for the first, NFC). Forms are filled with what is
no address: `none` and `n/a` would make one person of all who write them.
"""

import re
import unicodedata

_SEPARATORS = str.maketrans("", "", " \t\u00a0\u2011\u2013-./()")
_NUMBER = re.compile(r"\+?[0-9]{5,15}", re.ASCII)


def spelled_email(address: str) -> str:
    """The form in which an address is looked up: two spellings, one mailbox."""
    address = address.strip().lower()
    return address if address.isascii() else unicodedata.normalize("NFC", address)


def email_of(text: str) -> str | None:
    """The address that `text` writes; None for what is none: nobody at some place, or no place
    (RFC 5321, section 4.1.2)."""
    address = spelled_email(text)
    name, _, place = address.rpartition("@")
    return address if name and place else None


def phone_of(text: str) -> str | None:
    """The number that `text` writes; None for what is no telephone number."""
    text = text.strip()
    if text.startswith(("+", "00")):
        # The zero that is dialled within the country only: +44 (0)20 ...
        text = text.replace("(0)", "")
    plain = text.translate(_SEPARATORS)
    if plain.startswith("00"):
        plain = f"+{plain[2:]}"
    return plain if _NUMBER.fullmatch(plain) else None
