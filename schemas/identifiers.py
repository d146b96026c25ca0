"""When do two spellings name one telephone?

People write one number in many ways: with spaces, with dashes, with 00 or + before the country.
What is compared is the number as ITU-T E.164 has it, digits alone behind a + where the country is
told. One without a country stays without: the same digits are somebody else's abroad, so nothing
is added by guess.
"""

import re

_SEPARATORS = str.maketrans("", "", " \t\u00a0\u2011\u2013-./()")
_NUMBER = re.compile(r"\+?[0-9]{5,15}", re.ASCII)


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
