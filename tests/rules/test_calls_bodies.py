"""Bytes of a request: which are refused whole, and which hold calls that are judged one by one."""

import pytest

from producers.rules.bodies import NOT_JSON, Body, BodyFault, read_body
from producers.rules.quota import Quota


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"hello",
        b'{"batch": [1,]}',
        b"\xff\xfe{}",
        b'{"batch": ["\xc3("]}',
        b'{"batch": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"batch": ["\x00"]}',
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"batch": {}}',
        b'{"batch": null}',
    ],
)
def test_what_is_no_batch_is_refused(raw: bytes) -> None:
    assert isinstance(read_body(raw, is_batch=True), BodyFault)


def test_single_call_is_a_list_of_one() -> None:
    body = read_body(b'{"event": "E", "writeKey": "k", "sentAt": "s"}', is_batch=False)
    assert isinstance(body, Body)
    assert (len(body.calls), body.write_key, body.sent_at) == (1, "k", "s")


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_number_that_is_none_is_marked_where_it_stands(odd: str) -> None:
    body = read_body(f'{{"batch": [{{"a": 1.5}}, {{"a": {odd}}}]}}'.encode(), is_batch=True)
    assert isinstance(body, Body)
    assert body.calls == [{"a": 1.5}, {"a": NOT_JSON}]


def test_lone_surrogate_leaves_its_neighbours() -> None:
    body = read_body(b'{"batch": [{"a": "\\ud83d"}, {"a": "\\ud83e\\udde6"}]}', is_batch=True)
    assert isinstance(body, Body)
    assert body.calls == [{"a": "\ud83d"}, {"a": "🧦"}]


def test_both_readers_agree_on_numbers() -> None:
    numbers = b'{"batch": [1, -0, 123456789012345678, 12345678901234567890123, 1.5e3, 0.1%s]}'
    quick = read_body(numbers % b"", is_batch=True)
    tolerant = read_body(numbers % b", NaN", is_batch=True)
    assert isinstance(quick, Body)
    assert isinstance(tolerant, Body)
    assert [*quick.calls, NOT_JSON] == tolerant.calls
    assert list(map(type, quick.calls)) == list(map(type, tolerant.calls[:-1]))


def test_last_of_two_equal_names_counts_in_both_readers() -> None:
    for end in (b"", b', "x": NaN'):
        body = read_body(b'{"event": "A", "event": "B"%s}' % end, is_batch=False)
        assert isinstance(body, Body)
        assert isinstance(body.calls[0], dict)
        assert body.calls[0]["event"] == "B"


def test_quota_lets_its_rate_pass_and_says_how_long_to_wait() -> None:
    quota = Quota(100, 0)
    assert quota.take(60, 0) == 0
    assert quota.take(60, 0) == pytest.approx(0.2)
    assert quota.take(60, 200) == 0
    assert quota.take(1, 100) == pytest.approx(0.01)  # the clock was set back


def test_batch_larger_than_the_quota_passes_when_it_is_full_and_is_paid_for() -> None:
    quota = Quota(10, 0)
    assert quota.take(100, 0) == 0
    assert quota.take(10, 1000) == pytest.approx(9)
    assert quota.take(10, 10_000) == 0


def test_no_quota_lets_everything_pass() -> None:
    quota = Quota(0, 0)
    assert not any(quota.take(10_000, 0) for _ in range(100))
