"""Is a number that its Avro type cannot hold refused, as other readers would?"""

import pytest

from schemas.codec import COLLECTED, Malformed
from schemas.compiled import read_long, write_long
from tests.stream_log import make_event


@pytest.mark.parametrize("value", [0, -1, 1, 63, -64, 64, 2**31, 2**63 - 1, -(2**63)])
def test_64_bits_are_read_as_written(value: int) -> None:
    assert read_long(write_long(value), 0) == (value, len(write_long(value)))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**68])
def test_more_than_64_bits_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        read_long(write_long(value), 0)


@pytest.mark.parametrize("field", ["flags", "body_digest", "key_version"])
@pytest.mark.parametrize("value", [2**31 - 1, -(2**31)])
def test_32_bits_fit_an_int(field: str, value: int) -> None:
    event = make_event(**{field: value})
    assert COLLECTED.decode(COLLECTED.encode(event)) == event


@pytest.mark.parametrize("field", ["flags", "body_digest", "key_version"])
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_more_than_32_bits_are_no_int(field: str, value: int) -> None:
    with pytest.raises(Malformed, match="broken_avro"):
        COLLECTED.decode(COLLECTED.encode(make_event(**{field: value})))


@pytest.mark.parametrize("field", ["occurred_at_ms", "sent_at_ms", "received_at_ms"])
def test_time_of_more_than_64_bits_is_malformed(field: str) -> None:
    with pytest.raises(Malformed, match="broken_avro"):
        COLLECTED.decode(COLLECTED.encode(make_event(**{field: 2**64})))
