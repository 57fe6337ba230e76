import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickstream_assets.recommender.next_product import (
    FEATURES,
    Act,
    Assortment,
    Met,
    NextProduct,
    Sessions,
    Why,
    recent_products,
)


def model(
    sessions: list[list[int]],
    ids: str,
    category: list[int] | None = None,
    price: list[float] | None = None,
    brand: list[int] | None = None,
) -> NextProduct:
    """Make a model of sessions of product numbers, whose ids are letters."""
    return NextProduct(
        Assortment(
            tuple(ids),
            ("shoes", "hats"),
            np.array(category or [-1] * len(ids)),
            np.array(price or [math.nan] * len(ids)),
            ("north", "south"),
            np.array(brand or [-1] * len(ids)),
        ),
        Sessions(
            np.array([product for session in sessions for product in session], np.int64),
            np.cumsum([0, *map(len, sessions)]),
        ),
    )


def by_hand(sessions: list[list[int]], mine: list[int]) -> dict[int, float]:
    """Compute the votes as the paper's formulas have them, with dictionaries."""
    with_product = defaultdict(list)
    for number, session in enumerate(sessions):
        for product in session:
            with_product[product].append(number)
    similarity: dict[int, float] = defaultdict(float)
    newest: dict[int, int] = {}
    for place, product in enumerate(mine):
        for number in with_product[product]:
            similarity[number] += (len(mine) - place) / len(mine)
            newest.setdefault(number, place)
    nearest = sorted(similarity, key=lambda number: (similarity[number], number), reverse=True)[:100]
    votes: dict[int, float] = defaultdict(float)
    for number in nearest:
        for product in sessions[number]:
            rarity = 1 + math.log(len(sessions) / len(with_product[product]))
            votes[product] += similarity[number] * (1 - 0.1 * newest[number]) * rarity
    return votes


def test_votes_of_three_sessions_are_those_counted_by_hand():
    """The visitor met b, and a before it; L = 2.

    Session 0 (a, c) shares a at place 1: similarity 1/2, times 1 - 1/10. Session 1 (b, c) shares b at place 0: 1.
    Session 2 (d) shares nothing. c: (0.45 + 1) * (1 + ln(3/2)); a: 0.45 * (1 + ln 3); b: 1 + ln 3.
    """
    products, votes, places = model([[0, 2], [1, 2], [3]], "abcd").votes([1, 0])
    expected = {
        0: 0.45 * (1 + math.log(3)),
        1: 1 + math.log(3),
        2: 1.45 * (1 + math.log(1.5)),
    }
    assert dict(zip(products.tolist(), votes.tolist(), strict=True)) == pytest.approx(expected)
    # c speaks for itself by session 1, which is more alike, so by b.
    assert dict(zip(products.tolist(), places.tolist(), strict=True)) == {0: 1, 1: 0, 2: 0}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True), min_size=1, max_size=40),
    st.lists(st.integers(0, 11), min_size=1, max_size=10, unique=True),
)
def test_votes_are_the_papers(sessions: list[list[int]], mine: list[int]):
    products, votes, _ = model(sessions, "abcdefghijkl").votes(mine)
    assert dict(zip(products.tolist(), votes.tolist(), strict=True)) == pytest.approx(by_hand(sessions, mine))


def test_only_the_newest_sessions_of_a_product_vote():
    old, new = [[0, 1]] * 300, [[0, 2]] * 250
    products, votes, _ = model(old + new, "abc").votes([0])
    assert products.tolist() == [0, 2]
    # A hundred neighbours, all as similar.
    assert votes[1] == pytest.approx(100 * (1 + math.log(550 / 250)))


def test_a_product_that_the_model_does_not_know_has_no_votes_and_is_ranked_all_the_same():
    shop = model([[0, 1], [0, 2]], "abc", [0, 0, 1], [10, 11, 90])
    assert [len(part) for part in shop.votes([-1])] == [0, 0, 0]
    picks = shop.rank([Met("new", category="shoes", price=10.5)], 4)
    assert (picks[0].product_id, picks[0].why) == ("new", Why.MET)
    assert {(pick.product_id, pick.why) for pick in picks[1:]} == {
        ("a", Why.CATEGORY),
        ("b", Why.CATEGORY),
        ("c", Why.POPULAR),
    }
    assert sum(pick.score for pick in picks) == pytest.approx(1)


def test_a_list_says_by_which_product_each_pick_came():
    shop = model([[0, 1], [0, 1], [2, 3]], "abcd", [0, -1, -1, -1])
    mine = [Met("a"), Met("c", Act.ADDED_TO_CART)]
    reasons = {pick.product_id: (pick.why, pick.of) for pick in shop.rank(mine, 4)}
    assert reasons == {
        "a": (Why.MET, mine[0]),
        "b": (Why.SESSIONS, mine[0]),
        "c": (Why.MET, mine[1]),
        "d": (Why.SESSIONS, mine[1]),
    }


def test_what_is_left_out_and_what_was_met_is_not_listed():
    shop = model([[0, 1], [0, 2], [0, 3]], "abcd")
    listed = {pick.product_id for pick in shop.rank([Met("a")], 10, left_out={"c"}, without_met=True)}
    assert listed == {"b", "d"}
    assert shop.rank([], 10) == []


def test_weights_follow_what_visitors_chose():
    """Where nobody comes back to a product, it is listed last; where all do, first."""
    sessions = [[0, 1], [0, 2], [1, 2], [3, 4], [0, 4]] * 4
    shop = model(sessions, "abcde")
    back = shop.fitted(([Met("a")], "a") for _ in range(500))
    on = shop.fitted(([Met("a")], chosen) for chosen in "bcde" * 125)
    assert back.rank([Met("a")], 5)[0].product_id == "a"
    assert on.rank([Met("a")], 5)[-1].product_id == "a"
    # What comes among them every second time has about half of the chance.
    half = shop.fitted(([Met("a")], chosen) for chosen in "ab" * 2000)
    chances = {pick.product_id: pick.score for pick in half.rank([Met("a")], 5)}
    assert chances["a"] == pytest.approx(0.5, abs=0.05)


def test_few_choices_leave_the_first_weights_nearly_as_they_are():
    shop = model([[0, 1], [0, 2]] * 4, "abc")
    assert shop.fitted([]).weights.tolist() == shop.weights.tolist()
    assert np.abs(shop.fitted([([Met("a")], "c")]).weights - shop.weights).max() < 1
    # A choice that was no candidate says nothing.
    assert shop.fitted([([Met("a")], "unknown")]).weights.tolist() == shop.weights.tolist()


def test_a_model_that_is_written_down_and_read_ranks_the_same():
    shop = model([[0, 1], [0, 2], [3, 1]], "abcd", [0, 1, -1, 0], [1.5, 2, math.nan, 4]).fitted(
        [([Met("a")], "b")]
    )
    read = NextProduct.from_bytes(shop.to_bytes())
    assert read.rank([Met("b"), Met("x", price=3)], 5) == shop.rank([Met("b"), Met("x", price=3)], 5)
    assert read.assortment.ids == ("a", "b", "c", "d")
    assert read.to_bytes() == shop.to_bytes()


def test_a_model_of_other_features_is_refused(monkeypatch: pytest.MonkeyPatch):
    written = model([[0]], "a").to_bytes()
    monkeypatch.setattr("clickstream_assets.recommender.next_product.FEATURES", (*FEATURES, "more"))
    with pytest.raises(ValueError, match="other features"):
        NextProduct.from_bytes(written)


def test_recent_products_are_different_ones_with_the_most_that_was_done():
    events = [
        Met("b"),
        Met("a", category="shoes", price=2.0),
        Met("b", Act.BOUGHT, category="hats", price=1.0),
        Met("b", Act.ADDED_TO_CART),
    ]
    assert recent_products(events) == [Met("b", Act.BOUGHT, 3), Met("a", category="shoes", price=2.0)]


def test_a_product_of_the_brand_just_viewed_comes_before_others_of_the_category():
    shop = model([[0], [1], [2], [3], [4], [5]], "abcdef", [0, 0, 0, 1, 1, 0], brand=[0, 1, 0, 0, 1, 0])
    # c and f are of the category and the brand, b of the category, d of the brand, e of neither.
    ranked = [pick.product_id for pick in shop.rank([Met("a")], 6, without_met=True)]
    assert ranked == ["c", "f", "b", "d", "e"]
    # Of a product that the model does not know, the event says it.
    ranked = [pick.product_id for pick in shop.rank([Met("new", category="hats", brand="south")], 3)]
    assert ranked == ["new", "e", "d"]
