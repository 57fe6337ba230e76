from datetime import timedelta
from math import log2

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from clickstream_assets.catalogue import MODEL_EVALUATION
from clickstream_assets.recommender.algorithms import ALGORITHMS
from clickstream_assets.recommender.evaluation import (
    METRICS,
    Evaluation,
    chance_of_no_difference,
    choose,
    evaluate,
    evaluation_table,
    judge,
    rank_metrics,
)
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
)
from clickstream_assets_tests.analytics.records import at, event_table
from clickstream_assets_tests.recommender.shop import (
    PARAMETERS,
    days_of,
    event,
    events_table,
    interactions_table,
    met,
    planted_taste,
    random_events,
    split,
)


@pytest.mark.parametrize(
    ("hits", "relevant", "k", "expected"),
    [
        # Hits at ranks 1 and 3 of 5; three products to find.
        (
            [True, False, True, False, False],
            3,
            5,
            {
                "ndcg": (1 + 1 / log2(4)) / (1 + 1 / log2(3) + 1 / log2(4)),
                "map": (1 / 1 + 2 / 3) / 3,
                "precision": 2 / 5,
                "recall": 2 / 3,
            },
        ),
        # More to find than the list is long: a perfect list has nDCG 1, but not all of the recall.
        ([True, True], 4, 2, {"ndcg": 1.0, "map": 0.5, "precision": 1.0, "recall": 0.5}),
        # A list shorter than k.
        ([False, True], 1, 10, {"ndcg": 1 / log2(3), "map": 0.5, "precision": 0.1, "recall": 1.0}),
        ([False, False], 2, 2, {"ndcg": 0.0, "map": 0.0, "precision": 0.0, "recall": 0.0}),
        ([], 2, 2, {"ndcg": 0.0, "map": 0.0, "precision": 0.0, "recall": 0.0}),
    ],
)
def test_metrics_of_a_list_worked_out_by_hand(hits, relevant, k, expected):
    assert rank_metrics(np.array(hits, bool), relevant, k) == pytest.approx(expected)


def slow_popularity_figures(train: list[dict], test: list[dict], k: int) -> dict[str, dict[str, float]]:
    """Each judged user's metrics under popularity, in plain Python loops."""
    strength: dict[str, float] = {}
    for row in train:
        strength[row["product_id"]] = strength.get(row["product_id"], 0) + round(row["strength"] * 1000)
    ranking = sorted(strength, key=lambda product: (-strength[product], product))
    figures = {}
    for user in {row["user_id"] for row in train}:
        known = {row["product_id"] for row in train if row["user_id"] == user}
        wanted = {row["product_id"] for row in test if row["user_id"] == user} & set(ranking) - known
        if not wanted:
            continue
        listed = [product for product in ranking if product not in known][:k]
        gain = ideal = precision_sum = hits = 0.0
        for rank in range(1, k + 1):
            if rank <= len(wanted):
                ideal += 1 / log2(rank + 1)
            if rank <= len(listed) and listed[rank - 1] in wanted:
                hits += 1
                gain += 1 / log2(rank + 1)
                precision_sum += hits / rank
        figures[user] = {
            "ndcg": gain / ideal,
            "map": precision_sum / len(wanted),
            "precision": hits / k,
            "recall": hits / len(wanted),
        }
    return figures


@pytest.mark.slow
@pytest.mark.long_on_spark
@pytest.mark.parametrize("k", [1, 5, 40])
def test_figures_match_a_slow_reference(engine, k):
    events = engine.from_arrow(random_events())
    train, test = (interactions(part) for part in split(engine, events, 0.25))

    [judged] = evaluate(engine, train, test, PARAMETERS, k, ["popularity"])

    expected = slow_popularity_figures(
        engine.to_arrow(train).to_pylist(), engine.to_arrow(test).to_pylist(), k
    )
    found = {row.pop("user_id"): row for row in judged.by_user.to_pylist()}
    assert len(found) > 30
    assert found.keys() == expected.keys()
    for user, figures in found.items():
        assert figures == pytest.approx(expected[user])
    assert judged.mean("ndcg") == pytest.approx(np.mean([row["ndcg"] for row in expected.values()]))


@pytest.mark.long_on_spark
def test_only_users_with_something_new_and_known_to_find_are_judged(engine):
    train = engine.from_arrow(interactions_table(met("ann", "pen"), met("bob", "pen"), met("bob", "cup")))
    test = engine.from_arrow(
        interactions_table(
            met("ann", "pen"),  # met before
            met("ann", "cup"),  # counts
            met("ann", "nib"),  # not in train
            met("bob", "pen"),  # nothing new
            met("cid", "pen"),  # no history
        )
    )

    for judged in evaluate(engine, train, test, PARAMETERS, k=1):
        assert judged.by_user.to_pylist() == [
            {"user_id": "ann", "ndcg": 1.0, "map": 1.0, "precision": 1.0, "recall": 1.0}
        ]
        assert judged.coverage == 0.5


@pytest.mark.slow
def test_nothing_of_the_test_part_reaches_training(duckdb_engine):
    past = [event(f"u{user}", f"p{user % 5}", at=user) for user in range(60)]
    future = [event(f"u{user}", f"p{(user + 1) % 5}", "purchase", at=1000 + user) for user in range(20)]
    train, test = (
        interactions(part)
        for part in split(duckdb_engine, duckdb_engine.from_arrow(events_table(*past, *future)), 0.25)
    )

    trained_on = {(row["user_id"], row["product_id"]) for row in duckdb_engine.to_arrow(train).to_pylist()}
    assert trained_on == {(row["user_id"], row["product_id"]) for row in past}
    # Only the future shows that p1 is bought after p0. In the past all products are as popular, so the ids
    # decide their order: p0 for all but those who have met it.
    [judged] = evaluate(duckdb_engine, train, test, PARAMETERS, 1, ["popularity"])
    expected = [float((user + 1) % 5 == (0 if user % 5 else 1)) for user in range(20)]
    by_user = {row["user_id"]: row["recall"] for row in judged.by_user.to_pylist()}
    assert [by_user[f"u{user}"] for user in range(20)] == expected


@pytest.mark.long_on_spark
def test_all_algorithms_are_judged_on_the_same_users(engine):
    train, test = (engine.from_arrow(table) for table in planted_taste())

    als, item_knn, popularity = evaluate(
        engine, train, test, PARAMETERS, 10, ["als", "item_knn", "popularity"]
    )

    assert als.by_user["user_id"].equals(popularity.by_user["user_id"])
    assert item_knn.by_user["user_id"].equals(popularity.by_user["user_id"])
    assert choose([als, item_knn, popularity]).algorithm in {"als", "item_knn"}
    assert item_knn.mean("ndcg") > 1.3 * popularity.mean("ndcg")
    assert 0 < popularity.coverage < als.coverage <= 1


def test_without_history_there_is_nothing_to_judge(duckdb_engine):
    train, test = (duckdb_engine.from_arrow(interactions_table()) for _ in range(2))

    with pytest.raises(NotEnoughInteractions):
        evaluate(duckdb_engine, train, test, PARAMETERS, 10)


@pytest.mark.slow
@pytest.mark.parametrize("hours", [12, 1])
def test_nothing_of_a_judgement_stays_in_memory(duckdb_engine, hours):
    events = [
        {
            "user_id": f"u{number % 5}",
            "product_id": f"p{number % 7}",
            "event_time": at("2024-05-01 00:00") + timedelta(hours=number % hours),
        }
        for number in range(60)
    ]
    df = duckdb_engine.from_arrow(event_table(events))
    days = days_of(df)

    def held() -> set[tuple[str]]:
        found = duckdb_engine._connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal")
        return set(found.fetchall())

    before = held()
    assert before
    evaluations, choice = judge(duckdb_engine, days, df, PARAMETERS, 0.25, 3)
    # Of one moment, there is no past to learn from.
    assert len(evaluations) == (len(ALGORITHMS) if hours > 1 else 1)
    assert choice.algorithm == "popularity"
    assert held() == before


def judged(algorithm: str, ndcg: list[float]) -> Evaluation:
    by_user = pa.table(
        {"user_id": [f"u{user:04}" for user in range(len(ndcg))], **dict.fromkeys(METRICS, ndcg)}
    )
    return Evaluation(algorithm, 10, by_user, coverage=0.5, seconds=0.1)


NOISE = np.random.default_rng(2).normal(0, 0.05, 200)
NOISE -= NOISE.mean()
POPULARITY = judged("popularity", list(0.2 + NOISE))
BETTER = judged("als", list(0.25 + NOISE[::-1]))
BEST = judged("item_knn", list(0.3 + NOISE[::-1]))
NO_BETTER = judged("als", list(0.201 + NOISE[::-1]))
WORSE = judged("als", list(0.1 + NOISE[::-1]))


@pytest.mark.parametrize(
    ("evaluations", "serving", "chosen", "words"),
    [
        ([BETTER, POPULARITY], None, "als", "als 0.2500 against popularity 0.2000, better (p < 0.001)"),
        ([BETTER, BEST, POPULARITY], None, "item_knn", "item_knn 0.3000 against popularity 0.2000"),
        ([BETTER, BEST, POPULARITY], "als", "item_knn", "better"),
        (
            [NO_BETTER, POPULARITY],
            None,
            "popularity",
            "als 0.2010 against popularity 0.2000, not surely better",
        ),
        ([NO_BETTER, POPULARITY], "als", "als", "it is being served"),
        ([WORSE, POPULARITY], "als", "popularity", "als 0.1000 against popularity 0.2000, not surely better"),
        ([BETTER, POPULARITY], "popularity", "als", "better"),
        ([BETTER, POPULARITY], "a retired algorithm", "als", "better"),
        (
            [judged("als", [0.2] * 50), judged("popularity", [0.2] * 50)],
            None,
            "popularity",
            "the same for every user",
        ),
        (
            [judged("als", [1.0] * 29), judged("popularity", [0.0] * 29)],
            None,
            "popularity",
            "at least 30 users",
        ),
        ([judged("als", []), judged("popularity", [])], None, "popularity", "over 0 users"),
    ],
)
def test_the_best_that_surely_beats_popularity_is_chosen(evaluations, serving, chosen, words):
    choice = choose(evaluations, serving=serving)

    assert choice.algorithm == chosen
    assert words in choice.reason
    assert set(choice.reasons) == {evaluation.algorithm for evaluation in evaluations}


def test_the_evaluation_is_a_table_with_one_chosen_row():
    evaluations = [BETTER, BEST, POPULARITY]

    table = evaluation_table(evaluations, choose(evaluations), "v3")

    assert table.schema.equals(MODEL_EVALUATION.arrow)
    found = {row["algorithm"]: row for row in table.to_pylist()}
    assert [name for name, row in found.items() if row["chosen"]] == ["item_knn"]
    assert found["als"]["users"] == 200
    assert "item_knn 0.3000 is chosen" in found["als"]["reason"]
    assert "item_knn 0.3000 is better than popularity 0.2000" in found["popularity"]["reason"]


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.05, 0.3])
@pytest.mark.parametrize("users", [2, 30, 1000])
def test_the_chance_of_no_difference_is_that_of_the_paired_t_test(shift: float, users: int):
    ours, theirs = np.random.default_rng(users).random((2, users))
    expected = stats.ttest_rel(ours + shift, theirs, alternative="greater").pvalue
    assert chance_of_no_difference(ours + shift, theirs) == pytest.approx(expected)
    # Better or worse by the same for every user: there is no doubt.
    none = np.zeros(users)
    assert chance_of_no_difference(none + 1, none) == 0
    assert chance_of_no_difference(none - 1, none) == 1
