"""What can be set in each section of `headwater.toml`?

A name, a type, limits and a default each; headwater.example.toml explains them to an operator. How
they are read, and what is said of a wrong one, is in runtime/settings.py.
"""

from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from schemas.minors import AGE_OF_CONSENT

ROLES = ("write", "viewer", "activation", "consent_desk", "privacy_officer", "operator", "admin")
Role = Literal[
    "write", "viewer", "activation", "consent_desk", "privacy_officer", "operator", "admin"
]


LEAST_IDLE_DAYS = 30
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Years = Annotated[int, Field(ge=13, le=18)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """`[kafka]`: the log."""

    bootstrap_servers: str = Field("", description="host:port,...; empty starts an embedded broker")
    embedded: Literal["auto", "apache", "trial"] = Field(
        "auto", description="which broker to embed: apache (Java 17), trial (noida-db), or the best"
    )
    topic_prefix: str = Field("", description="put before every topic, group and transactional id")
    partitions: int = Field(4, ge=1, le=1024, description="lanes; fixed once topics exist")
    replication_factor: int = Field(1, ge=1, le=9, description="3 in production")
    generation: int = Field(
        1, ge=1, description="incarnation of the log; raise it when the log was lost"
    )
    barrier_ms: int = Field(150, ge=10, le=5000, description="time between a lane's transactions")
    instance_id: str = Field(
        "", description="static group member (KIP-345), one for each worker; empty: dynamic"
    )
    is_trial: bool = Field(
        False, description="set by `headwater up`: the broker is noida-db, see docs/trial-mode.md"
    )


class Redis(Section):
    """`[redis]`: profiles."""

    url: str = Field("", description="redis://...; empty starts an embedded Valkey")
    key_prefix: str = Field("profile:", description="before every profile key")


class ClickHouse(Section):
    """`[clickhouse]`: facts and counters."""

    url: str = Field("", description="http://user:password@host:8123; empty starts an embedded one")
    database: str = Field("headwater", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class Vault(Section):
    """`[vault]`: who is behind a pid, and their keys."""

    url: str = Field("", description="redis://...; empty uses [redis] url")
    key_prefix: str = Field("vault:", description="before every vault key")
    key_encryption_key_file: str = Field("", description="32 bytes in hex; wraps the data keys")
    pepper_file: str = Field("", description="32 bytes in hex; keys the hashes of identifiers")
    durable_writes: bool = Field(
        True, description="new people are on disk before use; needs appendonly and Redis 7.2"
    )


class Http(Section):
    """`[http]`: the one port."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535, description="0 takes a free one")
    keys: dict[Role, str] = Field(default_factory=dict, description="API key of each role")
    trusted_proxies: tuple[str, ...] = Field(
        (), description="addresses and networks whose X-Forwarded-For is believed"
    )
    country_from_peer: bool = Field(
        True, description="a browser's own address tells the country when its calls state none"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            try:
                ip_network(each)
            except ValueError:
                raise ValueError(
                    f"{each}: expected an address or network like 10.0.0.0/8"
                ) from None
        return proxies


class Metrics(Section):
    """`[metrics]`: where the roles beside collector and API show their numbers."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535, description="0: nowhere; `headwater up` takes free ones")


class Source(Section):
    """`[[sources]]`: who may send events."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    write_key: str = Field(min_length=8)
    quota_per_s: int = Field(0, ge=0, description="events a second; 0 is without limit")


class Purpose(Section):
    """`[purposes.*]`: why data may be used (GDPR Art. 6)."""

    basis: Literal["consent", "legitimate_interest"]
    owner: str = Field("", description="who in your organisation answers for this use")
    recipients: tuple[str, ...] = Field((), description="whom you give the data to for it")


class Consent(Section):
    """`[consent]`: how decisions come in."""

    signing_key_file: str = Field(
        "", description="32 bytes in hex; the Ed25519 key that signs the ledger of consents"
    )
    # In a header too (RFC 8058), which takes no other characters.
    public_url: str = Field(
        "",
        pattern=r"^(https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~%/-]*)?)?$",
        description="https://... of the one port, for links in messages; empty: its address",
    )
    unsubscribe_link_days: int = Field(365, ge=30, le=3650, description="how long a link works")
    preferences_link_days: int = Field(30, ge=1, le=3650, description="how long a link works")
    confirm_hours: int = Field(24, ge=1, le=168, description="to confirm a pending subscription")

    age_of_consent: int = Field(
        AGE_OF_CONSENT, ge=13, le=18, description="years, for a yes without a guardian's"
    )
    ages: dict[Country, Years] = Field(
        default_factory=dict, description="age of consent by country (ISO 3166)"
    )
    categories: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="purposes that a category of an SDK stands for; each purpose is one by itself",
    )

    def age_in(self, country: str | None) -> int:
        """The age of consent by the law of a country; None is one that is not known."""
        return self.ages.get(country or "", self.age_of_consent)


class ClearFields(Section):
    """`[fields.*]`: names whose values may travel readable; everything else is sealed."""

    clear: tuple[str, ...] = ()


class Fields(Section):
    """Fields that name things, not people, in Segment's e-commerce and e-mail events."""

    properties: ClearFields = ClearFields(
        clear=(
            "affiliation",
            "brand",
            "campaign_id",
            "campaign_name",
            "cart_id",
            "category",
            "checkout_id",
            "coupon",
            "currency",
            "discount",
            "email_id",
            "link_id",
            "list_id",
            "machine",
            "order_id",
            "position",
            "price",
            "product_id",
            "products",
            "quantity",
            "revenue",
            "shipping",
            "sku",
            "subtotal",
            "tax",
            "total",
            "value",
            "variant",
        )
    )
    products: ClearFields = ClearFields(clear=("image_url", "name", "url"))
    context: ClearFields = ClearFields(clear=("campaign",))
    traits: ClearFields = ClearFields()


class TopicSettings(Section):
    """`[topics.*]`: departures from a topic's defaults."""

    retention_days: int | None = Field(None, ge=1)


class TableSettings(Section):
    """How long a table of ClickHouse keeps its rows."""

    retention_days: int = Field(ge=1, le=36_500)


class FactSettings(Section):
    """How long facts stay of which counters are verified; counters stay."""

    retention_days: int = Field(
        0, ge=0, le=36_500, description="0: until the person is erased, or idle"
    )


class Tables(Section):
    """`[tables.*]`: those whose rows grow old."""

    facts: FactSettings = FactSettings()
    accesses: TableSettings = TableSettings(retention_days=365)
    verdicts: TableSettings = TableSettings(retention_days=90)


class Profiles(Section):
    """`[profiles]`: when nobody needs them any more."""

    idle_days: int = Field(
        0, ge=0, description="without event or decision; 0: never, else 30 at least"
    )

    @field_validator("idle_days")
    @classmethod
    def _leave_time(cls, days: int) -> int:
        # Copies of events come for so long (deduplication_hours), and would count as new.
        if 0 < days < LEAST_IDLE_DAYS:
            raise ValueError(f"expected 0 or {LEAST_IDLE_DAYS} at least")
        return days


class Time(Section):
    """`[time]`: windows and limits, in event or received time as each says."""

    deduplication_hours: int = Field(72, ge=1, le=720, description="of received time")
    visit_gap_minutes: int = Field(30, ge=1, le=1440, description="without an event; event time")
    history_days: int = Field(
        30, ge=1, le=90, description="what a person did is kept event by event for so long"
    )
    late_grant_minutes: int = Field(
        10, ge=0, le=10, description="after an event came, a grant still releases it; 0: never"
    )
    future_limit_s: int = Field(300, ge=0, description="later than this is clamped and flagged")
    skew_limit_s: int = Field(300, ge=0, description="larger client skew is corrected")
    stuck_after_s: int = Field(
        60, ge=2, le=86_400, description="of lag without progress: the role ends, to start again"
    )
    verify_every_s: int = Field(
        30, ge=1, le=86_400, description="between two comparisons of counters with facts"
    )
    clock_file: str = Field(
        "", description="set by `headwater demo --fast-clock`, and refused from anybody else"
    )


class Attribution(Section):
    """`[attribution]`: which campaign gets what happens without naming one."""

    window_days: int = Field(5, ge=1, le=365, description="after the last touch of its person")


class Erasure(Section):
    """`[erasure]`: how people are forgotten, and how that is proved."""

    signing_key_file: str = Field(
        "", description="32 bytes in hex: the Ed25519 key that signs certificates"
    )
    backups_days: int = Field(30, ge=0, le=3650, description="longest life of any backup")
    look_every_hours: int = Field(
        24, ge=1, le=8760, description="between two looks at an erasure that is not final"
    )
    rewrite_every_hours: int = Field(
        24, ge=0, le=8760, description="between two rewrites of ClickHouse's parts, at least"
    )
    keep_consent_proof: bool = Field(
        False, description="keep keyed hash and pid linked: consents stay provable"
    )
    sign_up_events: tuple[str, ...] = Field(
        ("Signed Up", "Account Created"),
        description="track events by which an erased person comes back as somebody new",
    )
