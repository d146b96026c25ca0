"""What does a person read who follows a link from a mail, and which answers can they give?

Plain HTML: no script, nothing from elsewhere, readable by a screen reader, in the dark and at any
size, in the language of its reader (consent_words.py). What a page asks is counted as the text that
its reader agreed to, by version, language and hash.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from consumers.rules.consent_words import VERSION, Words
from schemas.decisions import ALL_TOPICS, Decision, Proof

YES, NO = "yes", "no"
STOP_FIELD = "stop"
LANGUAGE_FIELD = "language"
"""A form says in which language it was read: that is what its reader agreed to."""
_STYLE = """
:root { color-scheme: light dark; font: 1.05rem/1.5 system-ui, sans-serif; }
body { max-width: 38rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
fieldset { border: 1px solid #767676; border-radius: .5rem; margin: 1rem 0; padding: .75rem 1rem; }
legend { font-weight: 600; padding: 0 .35rem; }
p { margin: .25rem 0 .75rem; }
label { display: inline-block; padding: .35rem 1.25rem .35rem 0; }
input { width: 1.15rem; height: 1.15rem; vertical-align: -0.15rem; }
button { font: inherit; padding: .6rem 1.1rem; border-radius: .5rem; border: 2px solid #1d4ed8;
  background: #1d4ed8; color: #fff; margin: .25rem .5rem .25rem 0; cursor: pointer; }
button.quiet { background: transparent; color: inherit; border-color: #767676; }
:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px; }
[role=status] { border-left: .35rem solid #15803d; padding: .5rem .9rem; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # The address is what opens the page: it must not travel, nor be kept or found.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One question: the matter ('purpose/sale', 'email/news'), and what holds now."""

    matter: str
    is_allowed: bool


def title_of(matter: str, words: Words) -> str:
    """What a matter is called: 'Statistics', 'email: newsletter'."""
    kind, _, name = matter.partition("/")
    if kind == "purpose":
        return words.purposes.get(name, (name, ""))[0]
    return f"{kind}: {words.everything if name == ALL_TOPICS else name}"


def _explained(matter: str, words: Words) -> str:
    kind, _, name = matter.partition("/")
    if kind == "purpose":
        return words.purposes.get(name, ("", words.other_purpose.format(name=name)))[1]
    return words.subscription.format(channel=kind, name=name)


def text_of(matters: Sequence[str], words: Words) -> str:
    """What the preference page asks about these, as text: the proof is its hash."""
    return "\n".join(
        f"{title_of(matter, words)}. {_explained(matter, words)}" for matter in matters
    )


def text_hash(text: str) -> bytes:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


def chosen(answers: Mapping[str, str], choices: Sequence[Choice], words: Words) -> list[Decision]:
    """The decisions in a sent form: what differs from what holds, and only what was asked."""
    proof = Proof(
        "preference_page",
        VERSION,
        text_hash(text_of([choice.matter for choice in choices], words)),
        words.language,
    )
    decided = []
    for choice in choices:
        answer = NO if answers.get(STOP_FIELD) else answers.get(choice.matter)
        is_purpose = choice.matter.startswith("purpose/")
        if answer == YES and not choice.is_allowed:
            status = "granted" if is_purpose else "subscribed"
        elif answer == NO and (choice.is_allowed or answers.get(STOP_FIELD)):
            status = "withdrawn" if is_purpose else "unsubscribed"
        else:
            continue
        decided.append(Decision(choice.matter, status, "preference-page", proof))
    if answers.get(STOP_FIELD):
        channels = {"email"} | {choice.matter.partition("/")[0] for choice in choices}
        decided += (
            Decision(f"{channel}/{ALL_TOPICS}", "unsubscribed", "preference-page", proof)
            for channel in sorted(channels - {"purpose"})
        )
    return decided


def preference_page(choices: Sequence[Choice], words: Words, said: str = "") -> str:
    """Every question with its present answer, one button to save and one to stop everything.

    `said` is what became of the choices just sent.
    """
    status = f'<p role="status">{said}</p>' if said else ""
    groups = "".join(
        f"<fieldset><legend>{escape(title_of(choice.matter, words))}</legend>"
        f"<p>{escape(_explained(choice.matter, words))}</p>"
        f"{_radio(choice, YES, words.yes)}{_radio(choice, NO, words.no)}</fieldset>"
        for choice in choices
    )
    return _page(
        words,
        words.preferences,
        f"{status}<p>{words.explained}</p>"
        f'<form method="post">{_shown_in(words)}{groups}'
        f'<button type="submit">{words.save}</button>'
        f'<button type="submit" class="quiet" name="{STOP_FIELD}" value="all">'
        f"{words.stop}</button></form>",
    )


def _shown_in(words: Words) -> str:
    return f'<input type="hidden" name="{LANGUAGE_FIELD}" value="{words.language}">'


def _radio(choice: Choice, value: str, label: str) -> str:
    checked = " checked" if choice.is_allowed == (value == YES) else ""
    name = escape(choice.matter)
    return f'<label><input type="radio" name="{name}" value="{value}"{checked}> {label}</label>'


def ask_to_unsubscribe(matter: str, words: Words) -> str:
    """Changes nothing: mail programs and scanners open links by themselves."""
    said = words.ask_unsubscribe.format(title=title_of(matter, words))
    form = f'<form method="post"><button type="submit">{words.unsubscribe}</button></form>'
    return _page(words, words.unsubscribe, f"<p>{escape(said)}</p>{form}")


def is_unsubscribed(matter: str, words: Words) -> str:
    said = words.is_unsubscribed.format(title=title_of(matter, words))
    return _page(words, words.unsubscribed, f'<p role="status">{escape(said)}</p>')


def confirmation_text(matter: str, words: Words) -> str:
    """What somebody agrees to who confirms a subscription."""
    return words.agreed.format(title=title_of(matter, words))


def ask_to_confirm(matter: str, words: Words) -> str:
    """Changes nothing, for the same reason."""
    return _page(
        words,
        words.confirm_title,
        f"<p>{escape(confirmation_text(matter, words))}</p>"
        f'<form method="post">{_shown_in(words)}'
        f'<button type="submit">{words.confirm}</button></form>'
        f"<p>{words.not_you}</p>",
    )


def is_confirmed(matter: str, words: Words) -> str:
    said = words.is_confirmed.format(title=title_of(matter, words))
    return _page(words, words.confirmed, f'<p role="status">{escape(said)}</p>')


def ask_guardian(words: Words) -> str:
    """Instead of a confirmation by somebody who may not give it (GDPR Art. 8)."""
    return _page(words, words.guardian_title, f"<p>{words.guardian}</p>")


def link_is_over(words: Words) -> str:
    """One page for whatever is wrong with a link: which it is, is nobody's business."""
    return _page(words, words.over_title, f"<p>{words.over}</p>")


def _page(words: Words, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>"
    )
