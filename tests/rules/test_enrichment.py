"""Country, device, channel and zone: what a call becomes of which nothing else stays."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rules.addresses import client_address, country_of, is_trusted_by, networks_of
from producers.rules.channels import channel_of
from producers.rules.devices import MOST_REMEMBERED, PARSED_PER_S, Devices, is_own, of_app
from producers.rules.enrichment import MADE, Enricher, Requester
from producers.rules.split import ClearNames, split_call
from schemas.circumstances import CHANNELS, DEVICES

NOW_MS = 1_800_000_000_000
PROXIES = is_trusted_by(networks_of(("10.0.0.0/8", "2001:db8::/32", "192.0.2.7")))
ENRICHER = Enricher(NOW_MS)
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36"
)


@pytest.mark.parametrize(
    ("address", "country"),
    [
        ("8.8.8.8", "US"),
        ("193.17.47.1", "CZ"),
        ("::ffff:193.17.47.1", "CZ"),
        ("2a00:1450::1", "IE"),
        ("0.0.0.0", None),
        ("10.1.2.3", None),
        ("127.0.0.1", None),
        ("2001:db8::1", None),
        ("no address", None),
        ("", None),
        ("8" * 1000, None),
        (8, None),
        (["8.8.8.8"], None),
        ({}, None),
    ],
)
def test_country_is_that_of_the_address(address: object, country: str | None) -> None:
    assert country_of(address) == country


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("8.8.8.8", [], "8.8.8.8"),
        ("8.8.8.8", ["193.17.47.1"], "8.8.8.8"),  # whoever is no proxy of ours is not believed
        ("10.0.0.1", ["193.17.47.1"], "193.17.47.1"),
        ("10.0.0.1", ["193.17.47.1:4711"], "193.17.47.1"),
        ("10.0.0.1", ["[2a00:1450::1]:4711"], "2a00:1450::1"),
        ("10.0.0.1", ["8.8.8.8, 193.17.47.1"], "193.17.47.1"),  # the first was written by anybody
        ("10.0.0.1", ["8.8.8.8, 193.17.47.1, 10.9.9.9", "192.0.2.7"], "193.17.47.1"),
        ("::ffff:10.0.0.1", ["193.17.47.1"], "193.17.47.1"),
        ("2001:db8::5", ["193.17.47.1"], "193.17.47.1"),
        ("10.0.0.1", [], ""),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], ""),
        ("10.0.0.1", ["unknown"], "unknown"),
        ("10.0.0.1", ["8.8.8.8," + "10.0.0.2," * 1000 + "10.0.0.3"], ""),  # read to a limit
    ],
)
def test_client_is_whom_the_last_trusted_proxy_heard(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == client


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (CHROME, "desktop"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 14_2) Version/17.2 Safari/605.1.15", "desktop"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Gecko/20100101 Firefox/115.0", "desktop"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/120.0.0.0 Safari/537.36", "desktop"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 "
            "(KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1",
            "mobile",
        ),
        ("Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) Mobile/15E148 Safari/604.1", "tablet"),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/120.0.0.0 Mobile Safari/537.36",
            "mobile",
        ),
        ("Mozilla/5.0 (Linux; Android 13; SM-X700) Chrome/120.0.0.0 Safari/537.36", "tablet"),
        ("Mozilla/5.0 (Linux; Android 9; CUBOT X18) Chrome/99.0 Mobile Safari/537.36", "mobile"),
        ("Mozilla/5.0 (Android 13; Mobile; rv:109.0) Gecko/115.0 Firefox/115.0", "mobile"),
        ("Mozilla/5.0 (Android 13; Tablet; rv:109.0) Gecko/115.0 Firefox/115.0", "tablet"),
        ("Dalvik/2.1.0 (Linux; U; Android 13; SM-G991B)", "mobile"),
        ("MyApp/1 CFNetwork/1410.0.3 Darwin/22.6.0", "mobile"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
        ("Mozilla/5.0 (compatible; YandexImages/3.0; +http://yandex.com/bots)", "bot"),
        ("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0.0.0 Safari/537.36", "bot"),
        ("curl/8.5.0", "bot"),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) Version/5.0 Safari/538.1", "other"),
        ("Mozilla/5.0 (Linux; Android 9; BRAVIA 4K UR2) Chrome/88 Safari/537.36", "other"),
        ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26) Version/13.0 Safari/605.1.15", "other"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) Edge/44.18363", "other"),
        ("Mozilla/5.0 (Windows NT 5.1) Firefox/11.0 (via ggpht.com GoogleImageProxy)", "other"),
        ("something else", "other"),
    ],
)
def test_device_is_the_class_of_the_user_agent(agent: str, device: str) -> None:
    devices = Devices(NOW_MS)
    assert devices.of_agent(agent, NOW_MS) == device
    assert devices.of_agent(agent, NOW_MS) == device, "the remembered one is another"


def test_a_flood_of_user_agents_is_told_by_words_and_memory_stays_bounded() -> None:
    devices = Devices(NOW_MS)
    # Only the parser knows this robot; at the end of a second's flood it is no longer asked.
    robot = "Mozilla/5.0 (Windows NT 10.0) BingPreview/1.0b {}"
    first = [devices.of_agent(robot.format(n), NOW_MS) for n in range(PARSED_PER_S)]
    assert set(first) == {"bot"}
    assert devices.of_agent(robot.format("late"), NOW_MS) == "desktop"
    assert devices.of_agent(robot.format(0), NOW_MS) == "bot", "a known one costs nothing"
    assert devices.of_agent(robot.format("late"), NOW_MS + 1000) == "bot"
    assert len(devices._known) == PARSED_PER_S + 1 < MOST_REMEMBERED


@pytest.mark.parametrize(
    ("context", "device"),
    [
        ({"device": {"type": "ios", "model": "iPhone15,2"}}, "mobile"),
        ({"device": {"type": "iOS", "model": "iPad13,4"}}, "tablet"),
        ({"device": {"type": "android"}}, "mobile"),
        ({"device": {"type": "Desktop"}}, "desktop"),
        ({"device": {"type": "toaster"}, "userAgentData": {"mobile": True}}, "mobile"),
        ({"userAgentData": {"mobile": False}}, "desktop"),
        ({"userAgentData": {"mobile": "yes"}}, None),
        ({"device": "phone"}, None),
        ({}, None),
    ],
)
def test_device_of_an_app_is_what_its_sdk_says(context: dict[str, Any], device: str | None) -> None:
    assert of_app(context) == device


HERE = "https://www.shop.example/tea"


def linked(referrer: object, url: str = HERE, **campaign: str) -> dict[str, Any]:
    context: dict[str, Any] = {"page": {"url": url, "referrer": referrer}}
    return context | ({"campaign": campaign} if campaign else {})


@pytest.mark.parametrize(
    ("context", "channel"),
    [
        # what a campaign says of itself, as in the default channel group
        (linked("", source="google", medium="cpc"), "paid_search"),
        (linked("", source="Google ", medium="CPC"), "paid_search"),
        (linked("", source="google", medium="organic"), "organic_search"),
        (linked("", source="facebook", medium="paid_social"), "paid_social"),
        (linked("", source="ig", medium="social"), "organic_social"),
        (linked("", source="linkedin.com", medium="referral"), "organic_social"),
        (linked("", source="youtube", medium="video"), "organic_video"),
        (linked("", source="youtube", medium="cpc"), "paid_video"),
        (linked("", source="ebay", medium="ppc"), "paid_shopping"),
        (linked("", source="shopper", medium="cpc", name="spring-shopping"), "paid_shopping"),
        (linked("", source="partner", medium="banner"), "display"),
        (linked("", source="partner", medium="cpm"), "display"),
        (linked("", source="partner", medium="cpc"), "paid_other"),
        (linked("", source="partner", medium="affiliate"), "affiliates"),
        (linked("", source="partner", medium="referral"), "referral"),
        (linked("", source="newsletter", medium="email"), "email"),
        (linked("", source="e-mail"), "email"),
        (linked("", source="radio", medium="audio"), "audio"),
        (linked("", source="twilio", medium="sms"), "sms"),
        (linked("", source="firebase", medium="x"), "push"),
        (linked("", source="app", medium="web_push"), "push"),
        (linked("", source="(direct)", medium="(none)"), "direct"),
        (linked("", source="leaflet", medium="paper"), None),
        (linked("", name="spring"), None),  # a campaign's link is not direct
        # the page that linked here
        (linked("https://www.google.com/"), "organic_search"),
        (linked("https://www.google.co.uk/search?q=tea"), "organic_search"),
        (linked("https://GOOGLE.cz"), "organic_search"),
        (linked("https://docs.google.com/document/d/1"), "referral"),
        (linked("https://mail.google.com/"), "email"),
        (linked("https://webmail.provider.example/"), "email"),
        (linked("https://accounts.google.com/"), None),
        (linked("https://www.paypal.com/checkout"), None),
        (linked("https://duckduckgo.com/"), "organic_search"),
        (linked("https://search.seznam.cz/?q=caj"), "organic_search"),
        (linked("https://www.seznam.cz/"), "organic_search"),
        (linked("https://l.facebook.com/l.php?u=x"), "organic_social"),
        (linked("https://t.co/abc"), "organic_social"),
        (linked("https://out.reddit.com/"), "organic_social"),
        (linked("https://m.youtube.com/watch?v=1"), "organic_video"),
        (linked("https://www.amazon.co.uk/dp/1"), "organic_shopping"),
        (linked("android-app://com.google.android.gm/"), "email"),
        (linked("android-app://com.google.android.googlequicksearchbox/"), "organic_search"),
        (linked("https://blog.example/tea?utm=1"), "referral"),
        (linked("https://google.com.evil.example/"), "referral"),
        (linked("https://notgoogle.com/"), "referral"),
        (linked("https://user:secret@www.google.com:443/x"), "organic_search"),
        # no way of coming
        (linked("https://shop.example/"), None),
        (linked("https://checkout.shop.example/paid"), None),
        (linked(""), "direct"),
        (linked("about:blank"), None),
        (linked(None), None),
        ({"page": {"referrer": "", "search": "?a=1&gclid=xyz"}}, "paid_search"),
        ({"page": {"referrer": "", "search": "?dclid=xyz"}}, "display"),
        ({"page": {"referrer": "", "search": "?gclid="}}, "direct"),
        ({"page": "no page"}, None),
        ({"campaign": ["no", "campaign"]}, None),
        ({"campaign": {"source": 5, "medium": {}}}, None),
        ({}, None),
    ],
)
def test_channel_is_the_way_they_came(context: dict[str, Any], channel: str | None) -> None:
    assert channel_of("", context) == channel


def test_what_happens_to_a_mailbox_came_by_email() -> None:
    assert channel_of("Email Link Clicked", linked("https://www.google.com/")) == "email"


WORDS = st.text("aZ:./?=-é\0", max_size=20)
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "ip": ANY_JSON,
        "userAgent": ANY_JSON,
        "userAgentData": st.dictionaries(st.sampled_from(["mobile", "x"]), ANY_JSON),
        "device": ANY_JSON | st.dictionaries(st.sampled_from(["type", "model"]), ANY_JSON),
        "timezone": ANY_JSON,
        "country": ANY_JSON,
        "channel": ANY_JSON,
        "campaign": ANY_JSON
        | st.dictionaries(st.sampled_from(["source", "medium", "name"]), ANY_JSON),
        "page": ANY_JSON
        | st.dictionaries(st.sampled_from(["url", "referrer", "search"]), ANY_JSON),
    },
)


@given(SAID)
def test_whatever_a_call_says_only_words_of_closed_lists_are_made(context: Any) -> None:
    made = ENRICHER.made_of("", context, None, NOW_MS)
    assert set(made) <= MADE
    assert made.get("channel") in CHANNELS | {None}
    assert made.get("device") in (*({"type": device} for device in DEVICES), None)
    country = made.get("country")
    assert country is None or (len(country) == 2 and country.isalpha() and country.isupper())
    assert orjson.loads(orjson.dumps(made)) == made


def test_a_server_s_address_and_agent_say_nothing_of_its_visitors() -> None:
    for agent in ("analytics-python/2.3.4", "okhttp/4.12", "node", "", "python-httpx/0.28"):
        assert not is_own(agent)
        assert ENRICHER.requester_of(agent, "8.8.8.8", NOW_MS) is None
    own = ENRICHER.requester_of(CHROME, "8.8.8.8", NOW_MS)
    assert own == Requester("US", "desktop")


def test_what_a_call_states_stands_before_what_its_request_shows() -> None:
    request = Requester("US", "desktop")

    def made(**context: Any) -> dict[str, Any]:
        return ENRICHER.made_of("", context, request, NOW_MS)

    assert made() == {"country": "US", "device": {"type": "desktop"}}
    assert made(ip="193.17.47.1")["country"] == "CZ"
    assert "country" not in made(ip="0.0.0.0")
    assert made(device={"type": "android"})["device"] == {"type": "mobile"}
    assert made(timezone="Europe/Prague")["timezone"] == "Europe/Prague"
    assert "timezone" not in made(timezone="Europe/Utrecht")
    assert "timezone" not in made(timezone="localtime")


def test_what_a_call_sends_under_our_names_is_sealed() -> None:
    context = {"country": "Atlantis", "channel": "word of mouth", "timezone": "mine"}
    names = ClearNames(frozenset(), frozenset({"campaign", "country"}) - MADE, frozenset())
    split = split_call({}, context, {}, names)
    assert split.clear == {}
    assert split.rest["context"] == context
