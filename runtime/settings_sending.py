"""What can be set of messages: when they may go, and through which servers?

Sections of `headwater.toml` like those of runtime/settings_sections.py, for the role `automation`.
"""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from runtime.settings_sections import Section
from runtime.time_zones import is_zone

_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"


class Sending(Section):
    """`[sending]`: when a message may go to a person."""

    key_prefix: str = Field("automation:", description="before every key of messages")
    timezone: str = Field("UTC", description="of people whose zone is not known")
    quiet_from: str = Field("22:00", description="by the person's clock; nothing goes from then on")
    quiet_to: str = Field("08:00", description="until then; the same as quiet_from: no quiet hours")
    most_a_day: int = Field(1, ge=1, le=1000, description="messages of a channel, calendar day")
    most_a_week: int = Field(3, ge=1, le=1000, description="messages of a channel, from Monday on")
    latest_hours: int = Field(
        24, ge=1, le=168, description="after it was due, a message is dropped"
    )
    keep_days: int = Field(90, ge=8, le=3650, description="how long decisions can be looked up")
    templates_dir: str = Field("", description="your templates; before the shipped ones")
    segment_webhook: str = Field("", description="name of the webhook that hears of segments")

    @field_validator("timezone")
    @classmethod
    def _know_zone(cls, name: str) -> str:
        if not is_zone(name):
            raise ValueError("expected a name of the time zone database, such as Europe/Prague")
        return name

    @field_validator("quiet_from", "quiet_to")
    @classmethod
    def _read_clock(cls, text: str) -> str:
        if not _CLOCK.fullmatch(text):
            raise ValueError("expected a time of day such as 22:00")
        return text


class Smtp(Section):
    """`[smtp]`: the server that takes our mail; without host there is the outbox instead."""

    host: str = Field("", description="empty: messages go to the outbox page, to nobody")
    port: int = Field(587, ge=1, le=65535, description="587 with starttls, 465 with tls")
    encryption: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none only for a server on this host"
    )
    ca_file: str = Field("", description="authorities to trust, in PEM; empty: the system's")
    username: str = Field("", description="empty: no login")
    password_file: str = Field("", description="a file with the password, and nothing else")
    from_address: str = Field("", description="'Shop <shop@example.com>'; needed with host")
    answer_within_s: int = Field(20, ge=1, le=60, description="for each step of the protocol")


class Webhook(Section):
    """`[[webhooks]]`: somebody who is told, signed (Standard Webhooks)."""

    name: str = Field(pattern=NAME, description="also the channel whose messages go there")
    url: str = Field(description="https://...")
    secret_file: str = Field(description="a file with whsec_ and 24 to 64 bytes in base64")
    allow_private: bool = Field(
        False, description="addresses of your own network may be connected to"
    )

    @field_validator("url")
    @classmethod
    def _read_url(cls, url: str) -> str:
        at = urlsplit(url)
        if at.scheme not in ("http", "https") or not at.hostname or at.username or at.fragment:
            raise ValueError("expected https://host/path, without a user or fragment")
        return url


def minute_of(clock: str) -> int:
    """'22:30' as minutes of the day."""
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
