"""What happens when a person follows a link from a mail?

Opening a page changes nothing: mail programs and scanners open links by themselves. Sending its
form does, and so does the one click that a mail program offers (RFC 8058). The link's own signature
says who asks; there is no login and no cookie, hence nothing that another site could abuse.
Somebody who was erased is answered like anybody, and nothing is kept.
"""

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Header, Request, Response

from consumers.consents.api import Consenting
from consumers.rules import consent_pages as pages
from consumers.rules.consent_pages import Choice
from consumers.rules.consent_words import VERSION, Words, words_for
from runtime.consent_desk import NeedsGuardian, Wanted
from runtime.consent_links import PATH, Kind, Link
from schemas.consent import allowed_now_in_all, decisions_on
from schemas.decisions import ALL_TOPICS, Decision, Proof, consents_on_topic, newest_of
from schemas.minors import GUARDIAN

MOST_BYTES = 16_384
_ONE_CLICK = ("List-Unsubscribe", "One-Click")
_OVER = 410
_FORBIDDEN = 403
Language = Annotated[str | None, Header(alias="Accept-Language")]


class Pages:
    """Shows what a link is for, and does it."""

    def __init__(self, consenting: Consenting) -> None:
        self._consenting = consenting

    def link(self, kind: Kind, token: str) -> Link | None:
        """The link if it is ours and has not expired."""
        link = self._consenting.links.read(kind, token)
        if link is None or link.expires_at_ms <= self._consenting.clock():
            return None
        return link

    async def unsubscribe(self, link: Link, form: dict[str, str]) -> None:
        """The subscription has ended."""
        is_one_click = form.get(_ONE_CLICK[0]) == _ONE_CLICK[1]
        proof = Proof("one_click" if is_one_click else "unsubscribe_page")
        await self._decide(
            link.pid, [Decision(link.matter, "unsubscribed", "unsubscribe-link", proof)]
        )

    async def choices(self, pid: bytes) -> list[Choice]:
        """Every purpose and every subscription of the person, with what holds now."""
        now_ms = self._consenting.clock()
        overlay = self._consenting.overlay
        decided = await overlay.consents_of_each(await overlay.kin.pids_of(pid))
        found = []
        for name, basis in sorted(self._consenting.bases.items()):
            about = f"purpose/{name}"
            on_it = [decisions_on(about, each) for each in decided]
            found.append(Choice(about, allowed_now_in_all(basis, on_it, now_ms)))
        for matter in sorted({one.subject_of for each in decided for one in each}):
            channel, _, topic = matter.partition("/")
            if channel != "purpose" and topic != ALL_TOPICS:
                on_it = [consents_on_topic(channel, topic, each) for each in decided]
                found.append(Choice(matter, allowed_now_in_all("consent", on_it, now_ms)))
        return found

    async def choose(self, link: Link, form: dict[str, str], words: Words) -> bool:
        """What the person chose is in force; False if a yes needs a guardian, and is not."""
        return await self._decide(link.pid, pages.chosen(form, await self.choices(link.pid), words))

    async def can_confirm(self, link: Link) -> bool:
        """True while the pending subscription is the newest word on its matter: so a link works
        once, and not after the person has decided otherwise."""
        (matters,) = await self._consenting.overlay.read([link.pid])
        newest = newest_of(matters.get(link.matter, ()))
        return (
            newest is not None
            and newest.record_id == link.record_id
            and newest.consent.status == "pending"
        )

    async def confirm(self, link: Link, words: Words) -> bool:
        """The subscription is in force; False if not, because a guardian must ask for it.

        A guardian who asked for it, as the pending record says, is who confirms it.
        """
        (matters,) = await self._consenting.overlay.read([link.pid])
        pending = newest_of(matters.get(link.matter, ()))
        by = GUARDIAN if pending is not None and pending.is_guardians else None
        text_hash = pages.text_hash(pages.confirmation_text(link.matter, words))
        proof = Proof("double_opt_in", VERSION, text_hash, words.language, authorised_by=by)
        return await self._decide(
            link.pid, [Decision(link.matter, "subscribed", "confirm-link", proof)]
        )

    async def _decide(self, pid: bytes, decisions: list[Decision]) -> bool:
        """False if one of them needs a guardian; the others are in force."""
        if not decisions or not await self._consenting.vault.has_person(pid):
            return True
        at_ms = self._consenting.clock()
        outcomes = await self._consenting.desk.decide(
            [Wanted(pid, decision, "said", at_ms) for decision in decisions]
        )
        return not any(isinstance(outcome, NeedsGuardian) for outcome in outcomes)


def build_router(shown: Pages) -> APIRouter:
    """Three pages under /consent, each with its form."""
    router = APIRouter(tags=["Consent pages"])
    options: dict[str, Any] = {"response_class": Response, "responses": {_OVER: {}}}

    @router.get(f"{PATH}/unsubscribe/{{token}}", summary="Ask before unsubscribing", **options)
    async def ask_unsubscribe(token: str, language: Language = None) -> Response:
        """A page with a button; changes nothing."""
        link, words = shown.link("unsubscribe", token), words_for(language)
        return _over(words) if link is None else _html(pages.ask_to_unsubscribe(link.matter, words))

    @router.post(f"{PATH}/unsubscribe/{{token}}", summary="Unsubscribe", **options)
    async def unsubscribe(token: str, request: Request, language: Language = None) -> Response:
        """200 once it is in force; one click of a mail program is enough (RFC 8058)."""
        link, words = shown.link("unsubscribe", token), words_for(language)
        if link is None:
            return _over(words)
        await shown.unsubscribe(link, await _form(request))
        return _html(pages.is_unsubscribed(link.matter, words))

    @router.get(f"{PATH}/preferences/{{token}}", summary="A person's own choices", **options)
    async def ask_preferences(token: str, language: Language = None) -> Response:
        """A page with every question and its present answer; changes nothing."""
        link, words = shown.link("preferences", token), words_for(language)
        if link is None:
            return _over(words)
        return _html(pages.preference_page(await shown.choices(link.pid), words))

    @router.post(f"{PATH}/preferences/{{token}}", summary="Save a person's choices", **options)
    async def save_preferences(token: str, request: Request, language: Language = None) -> Response:
        """The same page, once the choices are in force."""
        link, form = shown.link("preferences", token), await _form(request)
        words = words_for(language, form.get(pages.LANGUAGE_FIELD))
        if link is None:
            return _over(words)
        is_taken = await shown.choose(link, form, words)
        said = words.saved if is_taken else words.guardian
        return _html(pages.preference_page(await shown.choices(link.pid), words, said))

    @router.get(f"{PATH}/confirm/{{token}}", summary="Ask before confirming", **options)
    async def ask_confirm(token: str, language: Language = None) -> Response:
        """A page with a button; changes nothing."""
        link, words = shown.link("confirm", token), words_for(language)
        if link is None or not await shown.can_confirm(link):
            return _over(words)
        return _html(pages.ask_to_confirm(link.matter, words))

    @router.post(f"{PATH}/confirm/{{token}}", summary="Confirm a subscription", **options)
    async def confirm(token: str, request: Request, language: Language = None) -> Response:
        """200 once the subscription is in force; the link is used up then."""
        link, form = shown.link("confirm", token), await _form(request)
        words = words_for(language, form.get(pages.LANGUAGE_FIELD))
        if link is None or not await shown.can_confirm(link):
            return _over(words)
        if not await shown.confirm(link, words):
            return _html(pages.ask_guardian(words), _FORBIDDEN)
        return _html(pages.is_confirmed(link.matter, words))

    return router


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; of anything else, or of a body that is too large, none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=1000))


def _over(words: Words) -> Response:
    return _html(pages.link_is_over(words), _OVER)


def _html(page: str, status: int = 200) -> Response:
    return Response(page, status, headers=pages.HEADERS, media_type="text/html; charset=utf-8")
