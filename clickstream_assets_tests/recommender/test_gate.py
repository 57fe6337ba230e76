from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from clickstream_assets.catalogue import INTERACTION_DAYS
from clickstream_assets.recommender.evaluation import chance_of_no_difference
from clickstream_assets.recommender.gate import SIGNIFICANCE, News, is_surely_higher, next_look, significance
from clickstream_assets_tests.recommender.shop import START


def test_all_looks_together_are_allowed_what_one_would_be():
    spent = np.cumsum([significance(look) for look in range(1, 100_001)])

    assert spent[-1] < SIGNIFICANCE
    assert spent[-1] == pytest.approx(SIGNIFICANCE, rel=1e-4)
    assert significance(1) > 0.018


@pytest.mark.parametrize(
    ("last", "new_share", "expected"),
    [(0, 0.0, 1), (0, 1.0, 1), (3, 0.1, 4), (3, 1.0, 4), (3, 0.09, None), (3, 0.0, 3)],
)
def test_a_look_is_due_when_a_tenth_is_new_and_the_same_data_are_the_same_look(last, new_share, expected):
    assert next_look(last, new_share) == expected


def test_news_are_what_came_after_the_last_look(engine):
    hours = [timedelta(hours=n) for n in range(4)]
    rows = [
        {"event_date": START.date(), "user_id": "ann", "product_id": f"p{n}", "last_time": START + hour}
        for n, hour in enumerate(hours)
    ]
    schema = pa.schema([field.with_nullable(True) for field in INTERACTION_DAYS.arrow])
    future = engine.from_arrow(pa.Table.from_pylist(rows, schema=schema))

    assert News.since(engine, future, None) == (START + hours[3], 1.0)
    assert News.since(engine, future, START + hours[1]) == (START + hours[3], 0.5)
    assert News.since(engine, future, START + hours[3]).share == 0.0
    # The lake was put back to an earlier time.
    assert News.since(engine, future, START + timedelta(days=1)).share == 1.0


def published(shops: int, looks: int, better_by: float, new_share: float, allowed) -> np.ndarray:
    """The look at which each shop publishes, -1 for never.

    A shop judges by the latest 200 users, a part of them new at each look. Most lists find nothing, so most differences
    are 0.
    """
    random = np.random.default_rng(11)
    window, step = 200, int(200 * new_share)
    size = (shops, window + step * looks)
    ours, theirs = (np.where(random.random(size) < 0.2, random.random(size), 0) for _ in range(2))
    found = np.full(shops, -1)
    for look in range(1, looks + 1):
        judged = slice(step * (look - 1), step * (look - 1) + window)
        for shop in np.flatnonzero(found < 0):
            p_value = chance_of_no_difference(ours[shop, judged] + better_by, theirs[shop, judged])
            if p_value < allowed(look):
                found[shop] = look
    return found


@pytest.mark.slow
@pytest.mark.parametrize("new_share", [0.1, 1.0])
def test_of_shops_without_a_difference_at_most_five_per_cent_ever_publish(new_share: float):
    assert np.mean(published(400, 100, 0.0, new_share, significance) > 0) <= 0.05
    # What the same shops do that test at 5 % each time.
    assert np.mean(published(100, 100, 0.0, new_share, lambda _: 0.05) > 0) > 0.25


def test_a_true_winner_is_published_at_once():
    found = published(100, 5, 0.1, 0.1, significance)

    assert np.mean(found == 1) > 0.95


def test_a_share_is_surely_higher_when_chance_alone_would_seldom_make_it_so():
    # z = 0.02 / sqrt(0.41 * 0.59 * 2 / 5000) = 2.03, of 1.88 that it takes.
    assert is_surely_higher(0.42, 5000, 0.40, 5000)
    assert not is_surely_higher(0.415, 5000, 0.40, 5000)
    assert not is_surely_higher(0.40, 5000, 0.42, 5000)
    assert not is_surely_higher(0.42, 100, 0.40, 5000)
    # Nothing varies.
    assert not is_surely_higher(0.0, 10, 0.0, 10)
