"""Is a cart what its events say, whatever order they arrive in?"""

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rules.split import ClearNames, split_call
from runtime.settings import Settings
from schemas.carts import MOST_LINES, CartChange, JourneyState, furthest, union
from schemas.subjects import Consent, Money
from streams.rules.admit import Rules, admit
from streams.rules.cart import Cart, cart_of, change_of, with_change
from streams.rules.deduplicate import Memory
from streams.rules.gate import Gate
from streams.rules.journeys import Journey
from streams.rules.person import Person, read_person
from streams.rules.written_person import write_person
from tests.stream_log import GAP_MS, START_MS, make_event

MINUTE_MS = 60_000
JOURNEY = Journey("cart", MINUTE_MS, (), 1, 0, MINUTE_MS)
EVENTS = ("Product Added", "Product Removed", "Cart Viewed", "Checkout Started", "Order Completed")


def change(name: str, minute: int, /, **properties: Any) -> CartChange:
    made = change_of(
        make_event(
            event=name,
            event_id=f"{name}{minute}".encode().ljust(16, b"."),
            occurred_at_ms=START_MS + minute * MINUTE_MS,
            clear={"properties": properties},
        )
    )
    assert made is not None
    return made


def contents(cart: Cart | None) -> dict[str, int]:
    return {} if cart is None else {line.product_id: line.quantity for line in cart.lines}


@st.composite
def changes(draw: st.DrawFn) -> list[CartChange]:
    """Distinct changes of one cart, some at one time."""
    made: list[CartChange] = []
    for number in draw(st.lists(st.integers(0, 255), unique=True, max_size=14)):
        name = draw(st.sampled_from(EVENTS))
        minute = draw(st.integers(0, 8))
        product: dict[str, Any] = {"product_id": draw(st.sampled_from("abc"))}
        if draw(st.booleans()):
            product["quantity"] = draw(st.integers(1, 3))
        if name in ("Cart Viewed", "Checkout Started"):
            product = {"products": [product] * draw(st.integers(0, 2))}
        made_of = make_event(
            event=name,
            event_id=bytes([number]) * 16,
            occurred_at_ms=START_MS + minute * MINUTE_MS,
            clear={"properties": product},
        )
        one = change_of(made_of)
        assert one is not None
        made.append(one)
    return made


def replayed(history: list[CartChange]) -> dict[str, int]:
    """What lies in a cart, by whoever saw everything in the order in which it happened."""
    held: dict[str, int] = {}
    for each in sorted(history, key=lambda each: (each.occurred_at_ms, each.tie)):
        if each.kind in (3, 4):
            held = {}
        for line in each.lines:
            if each.kind != 2:
                held[line.product_id] = held.get(line.product_id, 0) + line.quantity
            elif line.quantity == 0 or held.get(line.product_id, 0) <= line.quantity:
                held.pop(line.product_id, None)
            else:
                held[line.product_id] -= line.quantity
    return held


@given(changes(), st.randoms(use_true_random=False))
def test_order_of_arrival_never_matters(history: list[CartChange], chance: random.Random) -> None:
    arriving = [*history, *history[:3]]
    chance.shuffle(arriving)
    kept: tuple[CartChange, ...] = ()
    for each in arriving:
        kept = with_change(kept, each)
    assert kept == union(history)
    assert contents(cart_of(kept)) == replayed(history)


@given(changes(), st.integers(1, 9), st.integers(1, 9))
def test_carts_join_the_same_whatever_is_joined_first(
    history: list[CartChange], first: int, second: int
) -> None:
    a, b, c = history[:first], history[first - 1 : second], history[second:]
    assert union(union(a, b), c) == union(a, union(b, c)) == union(c, b, a)


@given(st.integers(1, 400), st.randoms(use_true_random=False))
def test_too_many_changes_leave_the_newest_whatever_order_they_arrive_in(
    count: int, chance: random.Random
) -> None:
    made = [change("Product Added", minute, product_id=f"p{minute}") for minute in range(count)]
    made.append(change("Order Completed", chance.randrange(count)))
    arriving = list(made)
    chance.shuffle(arriving)
    kept: tuple[CartChange, ...] = ()
    for each in arriving:
        kept = with_change(kept, each)
    assert kept == union(made)
    assert len(kept) <= MOST_LINES


def test_late_order_empties_what_was_there_before_it_and_leaves_what_came_after() -> None:
    kept = union(
        (change("Product Added", 1, product_id="before"),),
        (change("Product Added", 9, product_id="after"),),
    )
    assert contents(cart_of(kept)) == {"before": 1, "after": 1}
    kept = with_change(kept, change("Order Completed", 5))
    assert contents(cart_of(kept)) == {"after": 1}
    assert contents(cart_of(with_change(kept, change("Order Completed", 10)))) == {}


def test_anchor_is_the_last_change_and_totals_are_kept_by_currency() -> None:
    tea = {"product_id": "tea", "price": "4.50", "currency": "EUR"}
    kept = union(
        (
            change("Product Added", 1, **tea, quantity=2),
            change("Product Added", 2, product_id="cup", price=7, currency="usd", name="Cup"),
            change("Product Added", 3, product_id="gift"),
            change("Product Removed", 4, product_id="tea", quantity=1),
        )
    )
    cart = cart_of(kept)
    assert cart is not None
    assert cart.anchor_at_ms == START_MS + 4 * MINUTE_MS
    assert cart.totals == (Money("EUR", 4_500_000), Money("USD", 7_000_000))
    assert [line.name for line in cart.lines] == ["", "Cup", ""]


def test_a_list_of_products_is_the_cart_and_no_list_says_nothing() -> None:
    listed = change(
        "Cart Viewed", 5, currency="EUR", products=[{"product_id": "a", "price": 1}, {"sku": "b"}]
    )
    cart = cart_of(union((change("Product Added", 1, product_id="gone"),), (listed,)))
    assert cart is not None
    assert [(line.product_id, line.sku) for line in cart.lines] == [("a", ""), ("", "b")]
    assert cart.totals == (Money("EUR", 1_000_000),)
    assert (
        change_of(make_event(event="Cart Viewed", clear={"properties": {"cart_id": "1"}})) is None
    )
    assert cart_of((change("Cart Viewed", 1, products=[]),)) is None


@pytest.mark.parametrize(
    "clear",
    [b"{}", b"[]", b'{"properties":7}', b'{"properties":{"products":{"a":1}}}',
     b'{"properties":{"products":[[1]]}}', b'{"properties":{"products":[{"sku":{}}]}}'],
)  # fmt: skip
def test_what_is_no_list_of_products_changes_nothing(clear: bytes) -> None:
    assert change_of(make_event(event="Cart Viewed", clear=clear)) is None


def test_odd_values_of_a_product_are_left_out() -> None:
    odd = {
        "product_id": 7,
        "quantity": "many",
        "price": "1e9",
        "currency": "euro",
        "url": "u" * 2_000,
    }
    [line] = change("Product Added", 1, **odd, name="n" * 999).lines
    assert (line.product_id, line.quantity, line.price_micro, line.currency) == ("7", 1, None, "")
    assert (line.url, len(line.name)) == ("", 256)


def test_a_cart_is_written_and_read_with_its_person() -> None:
    person, memory = Person(b"p" * 16), Memory(10**9)
    rules = Rules(Gate(counts=True, profiles=True), GAP_MS, journeys=(JOURNEY,))
    for number, name in enumerate(("Product Added", "Order Completed", "Product Added")):
        properties = {"product_id": str(number), "total": 1, "currency": "EUR"}
        event = make_event(
            event=name, occurred_at_ms=START_MS + number, clear={"properties": properties}
        )
        before = person.size
        admit(event, person, memory, rules)
        assert len(write_person(person)) - len(write_person(Person(b"p" * 16))) <= person.size
        assert person.size > before
    again = read_person(write_person(person))
    assert contents(cart_of(again.cart)) == contents(cart_of(person.cart)) == {"2": 1}


def test_without_leave_to_personalise_no_cart_is_kept_but_an_order_empties_it() -> None:
    person, memory = Person(b"p" * 16), Memory(10**9)
    rules = Rules(Gate(counts=True, profiles=True), GAP_MS, journeys=(JOURNEY,))
    clear = {"properties": {"product_id": "a"}}
    admit(make_event(event="Product Added", clear=clear), person, memory, rules)
    refusal = Consent("purpose/personalisation", "withdrawn", START_MS + 1, None, START_MS + 1)
    person.consents.append(refusal)
    late = {"occurred_at_ms": START_MS + 2, "received_at_ms": START_MS + 2, "clear": clear}
    admit(make_event(event="Product Added", **late), person, memory, rules)
    assert contents(cart_of(person.cart)) == {"a": 1}
    admit(make_event(event="Order Completed", **late), person, memory, rules)
    assert cart_of(person.cart) is None


def test_names_travel_readable_where_they_are_a_product_s() -> None:
    fields = Settings().fields
    names = ClearNames(
        frozenset(fields.properties.clear),
        frozenset(fields.context.clear),
        frozenset(fields.traits.clear),
        frozenset(fields.products.clear),
    )
    product = {"product_id": "p", "name": "Tea", "url": "https://shop/tea", "note": "for Ana"}
    added = split_call(product, {}, {}, names, "Product Added")
    assert added.clear == {"properties": {k: v for k, v in product.items() if k != "note"}}
    page = split_call({"name": "Ana", "url": "https://shop/?mail=ana"}, {}, {}, names, "")
    assert page.clear == {}
    order = split_call({"name": "Ana", "products": [product]}, {}, {}, names, "Order Completed")
    assert order.clear == {"properties": {"products": [added.clear["properties"]]}}
    assert orjson.loads(orjson.dumps(order.rest))["properties"]["name"] == "Ana"


@given(st.permutations(range(5)), st.integers(0, 5))
def test_how_far_a_person_of_several_pids_is_does_not_depend_on_their_order(
    order: list[int], cut: int
) -> None:
    states = [JourneyState("ab"[at % 2], at // 3, at, 1, at // 2, 0) for at in range(5)]
    some = [states[at] for at in order]
    joined = furthest([*furthest(some[:cut]), *furthest(some[cut:])])
    assert joined == [states[4], states[3]]
