from datetime import datetime, timedelta

import pytest

from clickstream_assets.catalogue.units import DAY
from clickstream_assets.recommender import repurchases
from clickstream_assets.recommender.algorithms import products_of
from clickstream_assets.recommender.bought import Again, Bought, rank_again, with_purchases
from clickstream_assets.recommender.ranking import Histories, best, histories
from clickstream_assets.recommender.selection import bought_products
from clickstream_assets_tests.recommender.shop import START, interactions_table, met


def day_of(time: int) -> int:
    return time // DAY


def test_a_later_purchase_counts_once_a_day_and_one_that_is_known_does_not() -> None:
    before = [Bought("pen", 2, 5 * DAY + 10), Bought("cup", 1, 5 * DAY)]
    purchases = [
        ("ink", 7 * DAY),
        ("pen", 6 * DAY),
        ("pen", 5 * DAY + 10),
        ("pen", 6 * DAY + 1),
        ("cup", 5 * DAY + 9),
    ]
    assert with_purchases(before, purchases, day_of) == [
        Bought("pen", 3, 6 * DAY + 1),
        Bought("cup", 1, 5 * DAY + 9),
        Bought("ink", 1, 7 * DAY),
    ]


def test_days_age_and_what_repeats_decide() -> None:
    bought = [Bought("pen", 2, 0), Bought("cup", 1, 10 * DAY), Bought("new", 1, 5 * DAY)]
    ranked = rank_again(bought, {"pen": 0.5, "cup": 0.1}, 0.4, 10)
    assert [again.bought.product_id for again in ranked] == ["pen", "new", "cup"]
    assert [again.score for again in ranked] == pytest.approx([2 * 0.5 * 0.5, 0.5**0.5 * 0.4, 0.1])
    # Without ageing equals are ranked by what was bought last.
    equals = rank_again(bought[1:], {}, 0.4, 0)
    assert equals == [Again(bought[1], 0.4), Again(bought[2], 0.4)]
    assert rank_again([], {}, 0.4, 10) == []


def _interaction(product: str, days: int, last: datetime) -> dict[str, object]:
    return met("ann", product, purchases=days) | {
        "purchase_days": days,
        "first_purchase": START,
        "last_purchase": last,
    }


def test_what_is_published_ranks_as_the_model_that_is_judged(engine) -> None:
    rows = [
        _interaction("pen", 3, START + timedelta(days=9)),
        _interaction("cup", 1, START + timedelta(days=12)),
        _interaction("ink", 2, START + timedelta(days=2)),
        met("ann", "mug"),
        met("bob", "pen"),
    ]
    df = engine.from_arrow(interactions_table(*rows))
    model = repurchases.train(engine, df, products_of(engine, df, 30))
    [row] = bought_products(engine, df).to_pylist()

    assert (row["user_id"], row["product_ids"], row["days"]) == ("ann", ["cup", "ink", "pen"], [1, 2, 3])
    bought = list(map(Bought, row["product_ids"], row["days"], row["last_times"]))
    ids = model.products.ids.to_pylist()
    ranked = rank_again(
        bought, dict(zip(ids, model.rates, strict=True)), model.usual_rate, model.ageing.half_life_days
    )
    of_ann = engine.to_arrow(histories(model.ageing.of(df))).to_batches()
    [picks] = [
        best(model, block, 3, is_met_left_out=False)
        for block in Histories.blocks(iter(of_ann), model.products)
    ]
    assert [again.bought.product_id for again in ranked] == [ids[place] for place in picks.products[0]]
    assert [again.score for again in ranked] == pytest.approx(picks.scores[0], abs=0.001)
