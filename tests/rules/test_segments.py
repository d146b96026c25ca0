"""Is a wrong definition refused with its line, what was expected, and the nearest known name?"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from headwater.segments import segments_of_file
from runtime.settings import Settings
from schemas.errors import SettingInvalid
from schemas.segments import (
    BUILT_IN,
    MOST_DEPTH,
    MOST_NODES,
    Known,
    SegmentsInvalid,
    parse_segments,
    segments_to_json,
    with_built_in,
)
from schemas.toml_lines import line_at, lines_of

KNOWN = Known(
    purposes=("advertising", "personalisation"),
    clear_traits=("plan",),
    scored_currencies=("EUR",),
    timezones=("Europe/Prague", "America/New_York"),
)
VIEWS = {"event": "Product Viewed", "within_days": 7, "at_least": 3}

FILE = """\
# Who gets what.
[[segments]]
id = "hesitant"
name = "Looked thrice, ordered nothing"
condition = { all = [
    { event = "Product Viewed", within_days = 7, at_least = 3, where = { category = "shoes" } },
    { not = { event = "Order Completed", within_days = 7 } },
    { consent = "advertising" },
] }

[[segments]]
id = "gold"
[segments.condition]
any = [
    { trait = "plan", is = "gold" },  # "a } in a comment"
    { segment = "hesitant" },
    { computed = "spent", currency = "EUR", at_least = 99.5 },
]
"""


def refused(condition: object, known: Known = KNOWN) -> list[str]:
    with pytest.raises(SegmentsInvalid) as refusal:
        parse_segments([{"id": "s", "condition": condition}], known)
    return [fault.said() for fault in refusal.value.faults]


def test_what_the_documents_show_is_accepted() -> None:
    segments = parse_segments(tomllib.loads(FILE)["segments"], KNOWN)
    assert [each.id for each in segments] == ["hesitant", "gold"]
    assert (
        parse_segments([each.to_json() for each in segments], KNOWN) == segments
    )  # as it travels on the log


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"evnt": "page", "within_days": 1}, ".condition.evnt: .*did you mean event"),
        ({"event": "page", "within_day": 1}, ".condition.within_day: .*did you mean within_days"),
        ({"event": "page"}, ".condition: expected one of within_days and within_hours"),
        ({"event": "page", "within_days": 31}, ".condition.within_days: .* 1 to 30"),
        ({"event": "page", "within_hours": 721}, ".condition.within_hours: .* 1 to 720"),
        ({"event": "page", "within_days": 1, "within_hours": 2}, ".condition.within_hours: "),
        ({"event": "page", "within_days": True}, ".condition.within_days: "),
        (VIEWS | {"where": {"categry": "a"}}, ".condition.where: .*did you mean category"),
        (VIEWS | {"exactly": 1}, ".condition.exactly: expected at_least alone"),
        (VIEWS | {"at_least": -1}, ".condition.at_least: "),
        ({"computed": "ordres", "at_least": 1}, ".condition.computed: .*did you mean orders"),
        ({"computed": "orders"}, ".condition: expected one of at_least"),
        ({"computed": "spent", "at_least": 1}, ".condition: expected currency"),
        ({"computed": "spent", "currency": "eur", "at_least": 1}, ".condition.currency: "),
        ({"computed": "spent", "currency": "EUR", "at_least": "1"}, ".condition.at_least: "),
        ({"computed": "recencey", "at_least": 4}, ".condition.computed: .*did you mean recency"),
        ({"computed": "recency", "at_least": 6}, ".condition.at_least: "),
        ({"computed": "recency", "at_least": 0}, ".condition.at_least: "),
        ({"computed": "recency"}, ".condition: expected one of at_least"),
        ({"computed": "monetary", "at_least": 4}, ".condition: expected currency"),
        (
            {"computed": "monetary", "currency": "EUX", "at_least": 4},
            r".condition.currency: expected one of \[traits.monetary\]: EUR; did you mean EUR",
        ),
        ({"computed": "product_views", "at_least": 1}, ".condition: expected one of within_days"),
        ({"computed": "visits", "within_days": 31, "at_least": 1}, ".condition.within_days: "),
        ({"computed": "refunds", "within_days": 7, "at_least": 1}, ".condition.within_days: "),
        ({"computed": "country", "is": "cz"}, ".condition.is: .*did you mean CZ"),
        ({"computed": "country", "in": ["CZ", 5]}, ".condition.in: expected a text"),
        ({"computed": "device", "is": "moble"}, ".condition.is: .*did you mean mobile"),
        ({"computed": "channel", "is": "mail"}, ".condition.is: .*did you mean email"),
        ({"computed": "timezone", "is": "Europe/Brag"}, ".condition.is: .*mean Europe/Prague"),
        ({"computed": "favourite_category", "at_least": 1}, ".condition.at_least: expected comp"),
        ({"trait": "plam", "is": "gold"}, ".condition.trait: .*fields.traits.*did you mean plan"),
        ({"trait": "email", "is": "a"}, ".condition.trait: .*sealed"),
        ({"trait": "plan"}, ".condition: expected one of is and in"),
        ({"trait": "plan", "in": []}, ".condition.in: "),
        ({"consent": "advertizing"}, ".condition.consent: .*did you mean advertising"),
        ({"consent": "purpose/sale"}, ".condition.consent: "),
        ({"segment": "repeat_buyer"}, ".condition.segment: .*did you mean repeat_buyers"),
        ({"all": []}, ".condition.all: expected a list"),
        ({"all": [VIEWS], "any": [VIEWS]}, ".condition.any: expected one of all or any"),
        ({"not": VIEWS, "name": "x"}, ".condition.name: expected not alone"),
        ({"all": [VIEWS, {"not": {"event": ""}}]}, r".condition.all\[1\].not.event: "),
        ([], ".condition: expected a condition"),
        ({}, ".condition: expected one of"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_place(condition: object, expected: str) -> None:
    said = refused(condition)
    assert any(re.match(rf"segments\[0\]{expected}", each) for each in said), said


def test_depth_and_size_have_limits() -> None:
    deep: dict[str, Any] = VIEWS
    for _ in range(MOST_DEPTH):
        deep = {"not": deep}
    assert "within each other" in refused(deep)[0]
    assert "at most 100" in refused({"any": [VIEWS] * MOST_NODES})[0]
    assert parse_segments([{"id": "s", "condition": {"any": [VIEWS] * (MOST_NODES - 1)}}])


@pytest.mark.parametrize("depth", [MOST_DEPTH, 300, 5_000])
def test_a_file_of_any_depth_is_refused_in_words(tmp_path: Path, depth: int) -> None:
    file = tmp_path / "deep.toml"
    inner = "{ computed = 'orders', at_least = 1 }"
    condition = "{ not = " * depth + inner + " }" * depth
    file.write_text(f"[[segments]]\nid = 'deep'\ncondition = {condition}\n")
    with pytest.raises(SettingInvalid, match=r"deep\.toml.*at most 8 conditions within each"):
        segments_of_file(file, Settings())


def test_segments_do_not_build_on_themselves_nor_far_on_each_other() -> None:
    def chain(*builds_on: str) -> list[dict[str, object]]:
        return [{"id": f"s{n}", "condition": {"segment": on}} for n, on in enumerate(builds_on)]

    with pytest.raises(SegmentsInvalid, match="not to build on itself"):
        parse_segments(chain("s1", "s0"))
    assert parse_segments(chain("repeat_buyers", "s0"))
    with pytest.raises(SegmentsInvalid, match="at most 3 segments"):
        parse_segments(chain("repeat_buyers", "s0", "s1"))


def test_a_wide_net_of_segments_is_checked_in_no_time() -> None:
    """Five rows of which each names all of the next: a hundred million ways lead through it."""

    def net(rows: int) -> list[dict[str, object]]:
        def row(number: int) -> list[dict[str, object]]:
            on = [{"segment": f"s{number + 1}_{n}"} for n in range(38)]
            inner = {"any": on} if number < rows - 1 else VIEWS
            return [{"id": f"s{number}_{n}", "condition": inner} for n in range(38)]

        return [each for number in range(rows) for each in row(number)]

    with pytest.raises(SegmentsInvalid, match="at most 3 segments") as refusal:
        parse_segments(net(5))
    assert {fault.path[0] for fault in refusal.value.faults} == set(range(2 * 38))
    assert len(parse_segments(net(3))) == 3 * 38


def test_each_segment_of_a_circle_and_before_it_is_named_and_no_other() -> None:
    builds_on = {"a": "b", "b": "c", "c": "b", "d": "repeat_buyers"}
    with pytest.raises(SegmentsInvalid) as refusal:
        parse_segments([{"id": k, "condition": {"segment": on}} for k, on in builds_on.items()])
    assert [fault.path for fault in refusal.value.faults] == [(n, "condition") for n in range(3)]


def test_numbers_that_no_trait_can_be_are_refused() -> None:
    for number in ("nan", "-inf", "9223372036854775808", "-9223372036854775808"):
        wrong = tomllib.loads(f'is = {{ trait = "plan", is = {number} }}')["is"]
        assert refused(wrong) == [
            "segments[0].condition.is: expected a text, a number, true or false"
        ]
        assert "expected texts" in refused({"trait": "plan", "in": [wrong["is"]]})[0]
    assert parse_segments([{"id": "s", "condition": {"trait": "n", "in": [-1.5, 2**63 - 1]}}])


def test_ids_are_unique_and_plain() -> None:
    with pytest.raises(SegmentsInvalid, match="an id of its own"):
        parse_segments([{"id": "a", "condition": VIEWS}] * 2)
    with pytest.raises(SegmentsInvalid, match="a-z, 0-9"):
        parse_segments([{"id": "A-b", "condition": VIEWS}])
    with pytest.raises(SegmentsInvalid, match="did you mean condition"):
        parse_segments([{"id": "a", "conditions": VIEWS}])


def test_built_in_segment_can_be_defined_anew() -> None:
    (mine,) = parse_segments([{"id": "repeat_buyers", "condition": VIEWS}])
    assert with_built_in([mine]) == (mine,)
    assert with_built_in([]) == BUILT_IN


def test_same_set_is_the_same_text() -> None:
    one = parse_segments([{"id": "a", "condition": VIEWS}])
    other = parse_segments([{"condition": dict(reversed(VIEWS.items())), "id": "a"}])
    assert segments_to_json(one) == segments_to_json(other)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((0,), 2),
        ((0, "id"), 3),
        ((0, "condition"), 5),
        ((0, "condition", "all", 0, "at_least"), 6),
        ((0, "condition", "all", 1, "not", "within_days"), 7),
        ((0, "condition", "all", 2, "consent"), 8),
        ((1, "id"), 12),
        ((1, "condition", "any", 0, "trait"), 15),
        ((1, "condition", "any", 1, "segment"), 16),
        ((1, "condition", "any", 2, "currency"), 17),
        ((1, "condition", "any", 2, "nothing there"), 17),
    ],
)
def test_line_of_what_is_wrong_is_told(path: tuple[str | int, ...], line: int) -> None:
    assert line_at(lines_of(FILE), ("segments", *path)) == line


def test_lines_are_right_in_tables_and_texts_of_every_kind() -> None:
    text = (
        'top = """\n[[segments]]\n"""\n'  # 1-3
        "[[segments]]\nid = 'a' # x\n"  # 4, 5
        '[[segments.condition.all]]\nevent = "a = ]"\n'  # 6, 7
        "[[segments.condition.all]]\n\"event\" = 'b'\nwhen = 1979-05-27 07:32:00\n"  # 8-10
        "[other]\nx.y = [\n  1, # }\n  { z = 2.5 } ]\n"  # 11-14
    )
    assert tomllib.loads(text)
    lines = lines_of(text)
    found = {path: line_at(lines, path) for path in lines}
    assert found[("segments", 0, "id")] == 5
    assert found[("segments", 0, "condition", "all", 0, "event")] == 7
    assert found[("segments", 0, "condition", "all", 1, "event")] == 9
    assert found[("segments", 0, "condition", "all", 1, "when")] == 10
    assert found[("other", "x", "y", 1, "z")] == 14
