"""In which language does a person read what they decide on?

In the one that their browser asks for (RFC 9110, 12.5.4), if it is among ours, else in English.
What somebody agreed to must be provable: the words of a language stand here, by VERSION, and the
proof of a decision has version, language and the SHA-256 of the very text. Whoever changes a word
gives the version a new number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "preferences-1"
_RANGE = re.compile(
    r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9]{1,8})*\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*"
)
_MOST_RANGES = 20


@dataclass(frozen=True, slots=True)
class Words:
    """Every text of the pages. `{name}`, `{channel}`, `{title}` stand for what a matter is."""

    language: str
    purposes: Mapping[str, tuple[str, str]]
    other_purpose: str
    everything: str
    subscription: str
    yes: str
    no: str
    preferences: str
    explained: str
    save: str
    stop: str
    saved: str
    unsubscribe: str
    ask_unsubscribe: str
    unsubscribed: str
    is_unsubscribed: str
    confirm_title: str
    confirm: str
    agreed: str
    not_you: str
    confirmed: str
    is_confirmed: str
    guardian_title: str
    guardian: str
    over_title: str
    over: str


_ENGLISH = Words(
    language="en",
    purposes={
        "analytics": ("Statistics", "We count visits and purchases to see what works."),
        "personalisation": (
            "Personal content",
            "We use what you viewed and bought to suggest things.",
        ),
        "advertising": (
            "Messages and advertising",
            "We use what we know of you to send you offers.",
        ),
        "sale": ("Sale or sharing", "We sell or share what we know of you to or with others."),
    },
    other_purpose="We use what we know of you for: {name}.",
    everything="everything",
    subscription="We write to you by {channel} about: {name}.",
    yes="Yes",
    no="No",
    preferences="Your choices",
    explained="You decide what your data may be used for. A no is in force at once.",
    save="Save",
    stop="Say no to everything",
    saved="Saved. Your choices are in force now.",
    unsubscribe="Unsubscribe",
    ask_unsubscribe="You will get no more messages of this kind: {title}.",
    unsubscribed="You are unsubscribed",
    is_unsubscribed="No more messages of this kind: {title}.",
    confirm_title="Confirm your subscription",
    confirm="Confirm",
    agreed="I want to get messages of this kind: {title}.",
    not_you="If this was not you, close this page: nothing will be sent.",
    confirmed="You are subscribed",
    is_confirmed="You will get messages of this kind: {title}.",
    guardian_title="A parent or guardian has to say yes",
    guardian="You are too young to say yes to this alone: a parent or guardian has to say it for "
    "you. Every no is in force.",
    over_title="This link is not valid any more",
    over="It has expired, was used already, or was not copied whole. The newest message that you "
    "got from us has a fresh one.",
)

_CZECH = Words(
    language="cs",
    purposes={
        "analytics": ("Statistiky", "Počítáme návštěvy a nákupy, abychom viděli, co funguje."),
        "personalisation": (
            "Obsah na míru",
            "Podle toho, co jste si prohlédli a koupili, vám doporučujeme další věci.",
        ),
        "advertising": (
            "Zprávy a reklama",
            "Podle toho, co o vás víme, vám posíláme nabídky.",
        ),
        "sale": (
            "Prodej nebo sdílení",
            "To, co o vás víme, prodáváme jiným nebo s nimi sdílíme.",
        ),
    },
    other_purpose="To, co o vás víme, používáme k tomuto účelu: {name}.",
    everything="vše",
    subscription="Píšeme vám (kanál: {channel}) na toto téma: {name}.",
    yes="Ano",
    no="Ne",
    preferences="Vaše volby",
    explained="Vy rozhodujete, k čemu smíme vaše údaje používat. Odmítnutí platí okamžitě.",
    save="Uložit",
    stop="Říci ne všemu",
    saved="Uloženo. Vaše volby teď platí.",
    unsubscribe="Odhlásit odběr",
    ask_unsubscribe="Takové zprávy už nebudete dostávat: {title}.",
    unsubscribed="Odběr je odhlášen",
    is_unsubscribed="Takové zprávy už nebudeme posílat: {title}.",
    confirm_title="Potvrďte odběr",
    confirm="Potvrdit",
    agreed="Chci dostávat takové zprávy: {title}.",
    not_you="Pokud jste to nebyli vy, zavřete tuto stránku: nic se posílat nebude.",
    confirmed="Odběr je přihlášen",
    is_confirmed="Budete dostávat takové zprávy: {title}.",
    guardian_title="Souhlasit musí rodič nebo zákonný zástupce",
    guardian="K tomuto souhlasu jste příliš mladí: musí ho za vás dát rodič nebo zákonný zástupce. "
    "Každé odmítnutí platí.",
    over_title="Tento odkaz už neplatí",
    over="Vypršel, byl už použit nebo nebyl zkopírován celý. Nový najdete v poslední zprávě, "
    "kterou jste od nás dostali.",
)

_GERMAN = Words(
    language="de",
    purposes={
        "analytics": (
            "Statistik",
            "Wir zählen Besuche und Käufe, um zu sehen, was ankommt.",
        ),
        "personalisation": (
            "Persönliche Inhalte",
            "Wir nutzen, was Sie angesehen und gekauft haben, um Ihnen etwas vorzuschlagen.",
        ),
        "advertising": (
            "Nachrichten und Werbung",
            "Wir nutzen, was wir von Ihnen wissen, um Ihnen Angebote zu schicken.",
        ),
        "sale": (
            "Verkauf oder Weitergabe",
            "Wir verkaufen, was wir von Ihnen wissen, oder geben es an andere weiter.",
        ),
    },
    other_purpose="Wir nutzen, was wir von Ihnen wissen, für: {name}.",
    everything="alles",
    subscription="Wir schreiben Ihnen (Kanal: {channel}) zu diesem Thema: {name}.",
    yes="Ja",
    no="Nein",
    preferences="Ihre Auswahl",
    explained="Sie entscheiden, wofür Ihre Daten verwendet werden dürfen. Ein Nein gilt sofort.",
    save="Speichern",
    stop="Zu allem Nein sagen",
    saved="Gespeichert. Ihre Auswahl gilt jetzt.",
    unsubscribe="Abmelden",
    ask_unsubscribe="Sie erhalten keine Nachrichten dieser Art mehr: {title}.",
    unsubscribed="Sie sind abgemeldet",
    is_unsubscribed="Keine Nachrichten dieser Art mehr: {title}.",
    confirm_title="Bestätigen Sie Ihre Anmeldung",
    confirm="Bestätigen",
    agreed="Ich möchte Nachrichten dieser Art erhalten: {title}.",
    not_you="Wenn Sie das nicht waren, schließen Sie diese Seite: Es wird nichts geschickt.",
    confirmed="Sie sind angemeldet",
    is_confirmed="Sie erhalten Nachrichten dieser Art: {title}.",
    guardian_title="Ein Elternteil oder Vormund muss zustimmen",
    guardian="Sie sind zu jung, um hier allein zuzustimmen: Ein Elternteil oder Vormund muss es "
    "für Sie tun. Jedes Nein gilt.",
    over_title="Dieser Link gilt nicht mehr",
    over="Er ist abgelaufen, wurde schon benutzt oder nicht ganz kopiert. In der neuesten "
    "Nachricht von uns steht ein frischer.",
)

_FRENCH = Words(
    language="fr",
    purposes={
        "analytics": (
            "Statistiques",
            "Nous comptons les visites et les achats pour voir ce qui fonctionne.",
        ),
        "personalisation": (
            "Contenu personnalisé",
            "Nous utilisons ce que vous avez vu et acheté pour vous faire des suggestions.",
        ),
        "advertising": (
            "Messages et publicité",
            "Nous utilisons ce que nous savons de vous pour vous envoyer des offres.",
        ),
        "sale": (
            "Vente ou partage",
            "Nous vendons à d'autres ce que nous savons de vous, ou le partageons avec eux.",
        ),
    },
    other_purpose="Nous utilisons ce que nous savons de vous pour : {name}.",
    everything="tout",
    subscription="Nous vous écrivons (canal : {channel}) à ce sujet : {name}.",
    yes="Oui",
    no="Non",
    preferences="Vos choix",
    explained="Vous décidez de l'usage qui peut être fait de vos données. Un non s'applique "
    "aussitôt.",
    save="Enregistrer",
    stop="Dire non à tout",
    saved="Enregistré. Vos choix s'appliquent désormais.",
    unsubscribe="Se désabonner",
    ask_unsubscribe="Vous ne recevrez plus de messages de ce type : {title}.",
    unsubscribed="Vous êtes désabonné",
    is_unsubscribed="Plus de messages de ce type : {title}.",
    confirm_title="Confirmez votre abonnement",
    confirm="Confirmer",
    agreed="Je souhaite recevoir des messages de ce type : {title}.",
    not_you="Si ce n'était pas vous, fermez cette page : rien ne sera envoyé.",
    confirmed="Vous êtes abonné",
    is_confirmed="Vous recevrez des messages de ce type : {title}.",
    guardian_title="Un parent ou tuteur doit dire oui",
    guardian="Vous êtes trop jeune pour dire oui seul : un parent ou tuteur doit le faire pour "
    "vous. Chaque non s'applique.",
    over_title="Ce lien n'est plus valable",
    over="Il a expiré, a déjà servi ou n'a pas été copié en entier. Le dernier message que vous "
    "avez reçu de nous en contient un nouveau.",
)

_SPANISH = Words(
    language="es",
    purposes={
        "analytics": (
            "Estadísticas",
            "Contamos visitas y compras para ver qué funciona.",
        ),
        "personalisation": (
            "Contenido personalizado",
            "Usamos lo que ha visto y comprado para hacerle sugerencias.",
        ),
        "advertising": (
            "Mensajes y publicidad",
            "Usamos lo que sabemos de usted para enviarle ofertas.",
        ),
        "sale": (
            "Venta o cesión",
            "Vendemos a otros lo que sabemos de usted, o lo compartimos con ellos.",
        ),
    },
    other_purpose="Usamos lo que sabemos de usted para: {name}.",
    everything="todo",
    subscription="Le escribimos (canal: {channel}) sobre este tema: {name}.",
    yes="Sí",
    no="No",
    preferences="Sus decisiones",
    explained="Usted decide para qué se pueden usar sus datos. Un no vale de inmediato.",
    save="Guardar",
    stop="Decir no a todo",
    saved="Guardado. Sus decisiones ya valen.",
    unsubscribe="Cancelar la suscripción",
    ask_unsubscribe="Ya no recibirá mensajes de este tipo: {title}.",
    unsubscribed="Suscripción cancelada",
    is_unsubscribed="No habrá más mensajes de este tipo: {title}.",
    confirm_title="Confirme su suscripción",
    confirm="Confirmar",
    agreed="Quiero recibir mensajes de este tipo: {title}.",
    not_you="Si no ha sido usted, cierre esta página: no se enviará nada.",
    confirmed="Suscripción confirmada",
    is_confirmed="Recibirá mensajes de este tipo: {title}.",
    guardian_title="Un padre, una madre o un tutor debe decir que sí",
    guardian="Es usted demasiado joven para decir que sí por su cuenta: debe hacerlo un padre, una "
    "madre o un tutor. Cada no vale.",
    over_title="Este enlace ya no es válido",
    over="Ha caducado, ya se usó o no se copió entero. El último mensaje que recibió de nosotros "
    "tiene uno nuevo.",
)

LANGUAGES: Mapping[str, Words] = {
    words.language: words for words in (_ENGLISH, _CZECH, _GERMAN, _FRENCH, _SPANISH)
}
"""By BCP 47; the first is for whoever asks for none of them."""


def words_for(accept_language: str | None, shown: str | None = None) -> Words:
    """The language that a form was `shown` in, else the one liked best in Accept-Language."""
    if shown is not None and shown in LANGUAGES:
        return LANGUAGES[shown]
    liked: dict[str, float] = {}
    for each in (accept_language or "").split(",")[:_MOST_RANGES]:
        found = _RANGE.fullmatch(each)
        if found is not None:
            liked.setdefault(found[1].lower(), min(float(found[2] or 1), 1.0))
    anything = liked.get("*", 0.0)
    weights = {language: liked.get(language, anything) for language in LANGUAGES}
    # Of equals the first: English before all, and what the browser names before what it does not.
    named = [language for language in liked if language in LANGUAGES]
    best = max([*named, *LANGUAGES], key=lambda language: weights[language])
    return LANGUAGES[best] if weights[best] > 0 else _ENGLISH
