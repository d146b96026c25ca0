"""Does everybody read what they decide on, and can the very words be proven later?"""

import hashlib
from dataclasses import fields

import pytest

from consumers.rules import consent_pages as pages
from consumers.rules.consent_pages import Choice
from consumers.rules.consent_words import LANGUAGES, VERSION, Words, words_for

MATTERS = [
    "purpose/advertising", "purpose/analytics", "purpose/personalisation", "purpose/sale",
    "purpose/research", "email/news", "email/all",
]  # fmt: skip
PROVEN = {
    "preferences-1": {
        "en": "6c0c11c2bb235f96",
        "cs": "41cee41a3b5cb64d",
        "de": "4b19577bfae2dea3",
        "fr": "d2942e62508a0097",
        "es": "c7b3f026bb69b5bf",
    },
}
"""By version and language: what decisions on record refer to. Never changed, only added to."""


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("cs", "cs"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("FR-ca", "fr"),
        ("en;q=0.3, es;q=0.7", "es"),
        ("pl, es;q=0.1", "es"),
        ("pl, ja;q=0.5", "en"),
        ("*", "en"),
        ("cs, *;q=0.5", "cs"),
        ("en;q=0, de;q=0.1", "de"),
        ("de;q=0", "en"),
        ("de, fr", "de"),
        ("de;q=nonsense, fr", "fr"),
        ("x" * 10_000, "en"),
        (",".join(["pl"] * 1000 + ["de"]), "en"),
    ],
)
def test_the_browser_says_which_language_is_read(header: str | None, language: str) -> None:
    assert words_for(header).language == language


def test_a_form_is_answered_in_the_language_that_it_was_read_in() -> None:
    assert words_for("de", "cs").language == "cs"
    assert words_for("de", "klingon").language == "de"


def asked(words: Words) -> str:
    """Whatever a decision may be proven by."""
    return "\n".join(
        [
            pages.text_of(MATTERS, words),
            *(pages.confirmation_text(matter, words) for matter in MATTERS),
        ]
    )


def test_no_word_changes_without_a_new_version() -> None:
    hashes = {
        language: hashlib.sha256(asked(words).encode()).hexdigest()[:16]
        for language, words in LANGUAGES.items()
    }
    assert hashes == PROVEN[VERSION]


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=list(LANGUAGES))
def test_every_language_says_everything_about_every_matter(words: Words) -> None:
    english = LANGUAGES["en"]
    assert set(words.purposes) == set(english.purposes)
    for each in fields(Words):
        mine, theirs = getattr(words, each.name), getattr(english, each.name)
        assert mine
        if isinstance(mine, str):
            for name in ("{name}", "{channel}", "{title}"):
                assert (name in mine) == (name in theirs), each.name
    choices = [Choice(matter, is_allowed=False) for matter in MATTERS[:-1]]
    shown = pages.preference_page(choices, words, words.saved)
    assert f'<html lang="{words.language}">' in shown
    assert all(pages.title_of(matter, words) in shown for matter in MATTERS[:-1])
    assert "{" not in shown.split("</style>")[1]
