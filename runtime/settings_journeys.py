"""What can be set of a journey: `[[journeys]]`?

A journey is a row of messages that follows something a person did, or stopped doing. There is one
trigger: a cart that was left behind (docs/journeys.md).
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from runtime.settings_sections import Section

MOST_DAYS = 30
"""Carts are kept so long, as is what else a person did lately."""
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_NameOrNone = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,64}$")]
_Hours = Annotated[int, Field(ge=1, le=24 * MOST_DAYS)]


class Journey(Section):
    """`[[journeys]]`: who is written to about what, when, and how often."""

    id: _Name = Field(description="stays the same, or everybody begins anew")
    trigger: Literal["cart_abandoned"] = "cart_abandoned"
    wait_minutes: int = Field(60, ge=1, le=MOST_DAYS * 1440, description="after the last change")
    follow_ups_hours: tuple[_Hours, ...] = Field(
        (24,), max_length=9, description="further messages, each so long after the one before"
    )
    most_messages: int = Field(3, ge=1, le=10, description="until the person is left in peace")
    cool_down_days: int = Field(7, ge=0, le=365, description="peace after the last message")
    expires_days: int = Field(7, ge=1, le=MOST_DAYS, description="an older cart is not mentioned")
    hold_out_percent: float = Field(
        0, ge=0, le=100, description="people who get no message, to compare with"
    )
    in_segment: _NameOrNone = Field("", description="only who is in this segment when it is due")
    not_in_segment: _NameOrNone = Field("", description="only who is not")
    channel: _Name = "email"
    topic: _Name = Field(description="the subscription that the message needs")
    template: _Name = Field("cart", description="name of the message's template")
    campaign_id: str = Field(
        "", max_length=512, description="the messages' campaign; empty: the journey's id"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Journey":
        begin_minutes = self.wait_minutes + 60 * sum(self.follow_ups_hours)
        if begin_minutes >= self.expires_days * 1440:
            raise ValueError(
                "expires_days: expected longer than wait_minutes and all follow_ups_hours together"
            )
        return self
