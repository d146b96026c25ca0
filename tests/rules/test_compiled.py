"""Is a number that its Avro type cannot hold refused, as other readers would?"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import COLLECTED, Malformed
from schemas.compiled import Compiler
from schemas.varints import read_long, read_time, write_long, write_time
from tests.stream_log import make_event


@pytest.mark.parametrize("value", [0, -1, 1, 63, -64, 64, 2**31, 2**63 - 1, -(2**63)])
def test_64_bits_are_read_as_written(value: int) -> None:
    assert read_long(write_long(value), 0) == (value, len(write_long(value)))


@given(st.integers(-(2**63), 2**63 - 1) | st.integers(1_500_000_000_000, 1_500_000_100_000))
def test_times_are_written_and_read_as_other_numbers_are(at_ms: int) -> None:
    written = write_long(at_ms)
    for _ in range(2):  # the second time from what is remembered
        assert write_time(at_ms) == written
        assert read_time(written + b"!", 0) == (at_ms, len(written))


@given(
    st.lists(
        st.sampled_from([0, -1, 1, 63, 2**41, 2**62, -(2**40)])
        | st.integers(1_700_000_000_000, 1_700_000_050_000)
        | st.integers(-(2**63), 2**63 - 1),
        min_size=3,
        max_size=3,
    ),
    st.integers(-(2**31), 2**31 - 1),
)
def test_records_keep_every_time_and_digest(times: list[int], digest: int) -> None:
    occurred_at_ms, sent_at_ms, received_at_ms = times
    event = make_event(
        occurred_at_ms=occurred_at_ms,
        sent_at_ms=sent_at_ms,
        received_at_ms=received_at_ms,
        body_digest=digest,
    )
    assert COLLECTED.decode(COLLECTED.encode(event)) == event


class Moment(msgspec.Struct):
    at_ms: int


@pytest.mark.parametrize("at_ms", [0, -1, 5, 100, 20_000, 1_700_000_000_000])
def test_time_at_the_end_of_a_record_is_read(at_ms: int) -> None:
    field = {"name": "at_ms", "type": "long"}
    read = Compiler({"Moment": Moment}).reader(
        {"type": "record", "name": "Moment", "fields": [field]}
    )
    assert read(write_long(at_ms), 0) == (Moment(at_ms), len(write_long(at_ms)))


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
