import dataclasses
from datetime import timedelta
from hashlib import sha256
from math import log2

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from clickstream_assets.catalogue import MODEL_EVALUATION
from clickstream_assets.recommender.algorithms import ALGORITHMS
from clickstream_assets.recommender.evaluation import (
    SERVED,
    Contender,
    Evaluation,
    chance_of_no_difference,
    choose,
    evaluate,
    evaluation_table,
    interval,
    judge,
)
from clickstream_assets.recommender.gate import SIGNIFICANCE
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
    split_by_time,
)
from clickstream_assets.recommender.metrics import METRICS, rank_metrics
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
    found = {row.pop("user_id"): row for row in judged.by_user.select(["user_id", *METRICS]).to_pylist()}
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
        found = {"user_id": "ann", "ndcg": 1.0, "map": 1.0, "precision": 1.0, "recall": 1.0}
        assert judged.by_user.to_pylist() == [found | {"relevant": 1, "met": 1}]
        assert (judged.coverage, judged.pairs, judged.share) == (0.5, 1, 1 / 5)
        # One of two users had met what was listed.
        assert judged.novelty == 1.0


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
def test_a_sample_of_the_users_is_judged_as_they_all_are(engine):
    events = engine.from_arrow(random_events())
    train, test = (interactions(part) for part in split(engine, events, 0.25))
    algorithms = ["popularity", "item_knn"]

    whole = evaluate(engine, train, test, PARAMETERS, 10, algorithms)
    some = evaluate(engine, train, test, PARAMETERS, 10, algorithms, most=20)

    hashes = sorted(
        whole[0].by_user["user_id"].to_pylist(), key=lambda user: sha256(user.encode()).hexdigest()
    )
    for every, sample in zip(whole, some, strict=True):
        assert sample.by_user["user_id"].to_pylist() == sorted(hashes[:20])
        is_sampled = pc.is_in(every.by_user["user_id"], sample.by_user["user_id"].combine_chunks())
        assert sample.by_user.to_pylist() == every.by_user.filter(is_sampled).to_pylist()
        # The pairs that the users stand for are those of all.
        assert sample.share == every.share > 0


@pytest.mark.long_on_spark
def test_all_algorithms_are_judged_on_the_same_users(engine):
    train, test = (engine.from_arrow(table) for table in planted_taste())

    als, item_knn, popularity = evaluate(
        engine, train, test, PARAMETERS, 10, ["als", "item_knn", "popularity"]
    )

    assert als.by_user["user_id"].equals(popularity.by_user["user_id"])
    assert item_knn.by_user["user_id"].equals(popularity.by_user["user_id"])
    assert choose([als, item_knn, popularity], SIGNIFICANCE).algorithm in {"als", "item_knn"}
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
    if hours > 1:
        past, future = split_by_time(duckdb_engine, days, df, 0.25)
        found = judge(duckdb_engine, past, future, PARAMETERS, 3)
        assert [e.algorithm for e in found["purchases"]] == list(ALGORITHMS)
        assert choose(found["next"], SIGNIFICANCE).algorithm == "popularity"
    else:
        # Of one moment, there is no past to learn from.
        with pytest.raises(NotEnoughInteractions, match="is earlier"):
            split_by_time(duckdb_engine, days, df, 0.25)
    assert held() == before


def judged(algorithm: str, ndcg: list[float]) -> Evaluation:
    by_user = pa.table(
        {
            "user_id": [f"u{user:04}" for user in range(len(ndcg))],
            **dict.fromkeys(METRICS, pa.array(ndcg, pa.float64())),
            "relevant": pa.array([2] * len(ndcg), pa.int64()),
            "met": pa.array(range(len(ndcg)), pa.int64()),
        }
    )
    return Evaluation(algorithm, 10, by_user, coverage=0.5, seconds=0.1)


NOISE = np.random.default_rng(2).normal(0, 0.05, 200)
NOISE -= NOISE.mean()
POPULARITY = judged("popularity", list(0.2 + NOISE))
BETTER = judged("als", list(0.25 + NOISE[::-1]))
BEST = judged("item_knn", list(0.3 + NOISE[::-1]))
NO_BETTER = judged("als", list(0.201 + NOISE[::-1]))
WORSE = judged("als", list(0.1 + NOISE[::-1]))
A_LITTLE_BETTER = judged("item_knn", list(0.251 + NOISE))


@pytest.mark.parametrize(
    ("evaluations", "serving", "chosen", "words"),
    [
        (
            [BETTER, POPULARITY],
            None,
            "als",
            "als 0.2500 against popularity 0.2000, better (p < 0.001, of 0.03)",
        ),
        ([BETTER, BEST, POPULARITY], None, "item_knn", "item_knn 0.3000 against popularity 0.2000"),
        ([BETTER, BEST, POPULARITY], "als", "item_knn", "better"),
        (
            [NO_BETTER, POPULARITY],
            None,
            "popularity",
            "als 0.2010 against popularity 0.2000, not surely better",
        ),
        ([NO_BETTER, POPULARITY], "als", "als", "als 0.2010 is being served, and no algorithm is sure"),
        # Of what is served, the bare mean is not enough to be followed.
        (
            [BETTER, A_LITTLE_BETTER, POPULARITY],
            "als",
            "als",
            "item_knn 0.2510 against als 0.2500, not surely",
        ),
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
        (
            [judged("als", [1.0] * 9 + [0.0] * 90), judged("popularity", [0.0] * 99)],
            None,
            "popularity",
            "different for 9 users",
        ),
        ([judged("als", []), judged("popularity", [])], None, "popularity", "over 0 users"),
    ],
)
def test_the_best_that_is_surely_better_than_what_is_served_is_chosen(evaluations, serving, chosen, words):
    choice = choose(evaluations, SIGNIFICANCE, served=serving)

    assert choice.algorithm == chosen
    assert words in choice.reason
    assert set(choice.reasons) == {evaluation.algorithm for evaluation in evaluations}


def test_the_evaluation_is_a_table_with_one_chosen_row():
    evaluations = [BETTER, BEST, POPULARITY]

    table = evaluation_table(evaluations, {"next": choose(evaluations, SIGNIFICANCE)}, "v3", seed=1)

    assert table.schema.equals(MODEL_EVALUATION.arrow)
    found = {row["algorithm"]: row for row in table.to_pylist()}
    assert [name for name, row in found.items() if row["chosen"]] == ["item_knn"]
    assert found["als"]["users"] == 200
    assert "item_knn 0.3000 is chosen" in found["als"]["reason"]
    assert "item_knn 0.3000 is chosen" in found["popularity"]["reason"]
    low, high = found["als"]["ndcg_low"], found["als"]["ndcg_high"]
    assert low < found["als"]["ndcg"] < high
    # Of 200 users with a standard deviation of .05, by the normal distribution.
    assert (high - low) / 2 == pytest.approx(1.96 * 0.05 / 200**0.5, rel=0.15)


def test_nothing_replaces_what_is_served_at_a_look_that_shows_nothing_new():
    choice = choose([BETTER, BEST, POPULARITY], 0.0, served="als")

    assert choice.algorithm == "als"
    assert "too little is new since the last look" in choice.reason


def test_what_is_served_with_other_parameters_is_a_contender_of_its_own():
    served = dataclasses.replace(BEST, is_served=True)

    choice = choose([BETTER, POPULARITY, served], SIGNIFICANCE, served=SERVED)

    assert (choice.algorithm, choice.chosen) == ("item_knn", SERVED)
    table = evaluation_table([BETTER, POPULARITY, served], {"next": choice}, "v1", seed=1)
    assert [row["is_served"] for row in table.to_pylist() if row["chosen"]] == [True]


def test_the_bootstrap_interval_is_that_of_the_seed():
    values = np.random.default_rng(5).random(300)

    assert interval(values, 1) == interval(values, 1) != interval(values, 2)
    assert interval(np.empty(0), 1) == (0.0, 0.0)


def test_thirds_of_the_users_are_by_what_they_had_met():
    evaluation = judged("als", [0.0] * 10 + [0.5] * 10 + [1.0] * 10)

    thirds = [
        (part["met_from"], part["met_to"], part["users"], part["ndcg"]) for part in evaluation.by_activity()
    ]
    assert thirds == [(0, 9, 10, 0.0), (10, 19, 10, 0.5), (20, 29, 10, 1.0)]


@pytest.mark.long_on_spark
def test_each_target_judges_its_own_users_by_its_own_products(engine):
    train = engine.from_arrow(
        interactions_table(
            met("ann", "pen", purchases=1),
            met("bob", "pen"),
            met("bob", "cup"),
            met("cid", "cup", purchases=1),
        )
    )
    test = engine.from_arrow(
        interactions_table(
            met("ann", "pen", purchases=1),  # bought again
            met("ann", "cup"),  # new to them, and not bought
            met("bob", "pen", purchases=2),  # met before, and bought for the first time
            met("dee", "cup"),  # without a history
            met("dee", "nib", purchases=1),  # not in train
        )
    )

    def of(target, algorithm: str) -> tuple:
        [found] = evaluate(engine, train, test, PARAMETERS, 1, [algorithm], target=target)
        recalls = dict(
            zip(found.by_user["user_id"].to_pylist(), found.by_user["recall"].to_pylist(), strict=True)
        )
        return recalls, found.share

    assert of("next", "popularity") == ({"ann": 1.0}, 1 / 5)
    # pen and cup say the same; by id, cup is first.
    assert of("new", "popularity") == ({"dee": 1.0}, 1 / 5)
    assert of("purchases", "buy_again") == ({"ann": 1.0, "bob": 0.0}, 2 / 5)


@pytest.mark.long_on_spark
def test_what_is_served_is_judged_on_the_same_split(engine):
    train, test = (engine.from_arrow(table) for table in planted_taste())
    served = Contender("als", dataclasses.replace(PARAMETERS, factors=2))

    found = evaluate(engine, train, test, PARAMETERS, 10, ["als", "popularity"], served=served)

    assert [evaluation.name for evaluation in found] == ["als", "popularity", SERVED]
    assert found[2].parameters == served.parameters
    assert found[2].by_user["user_id"].equals(found[0].by_user["user_id"])
    same = Contender("als", PARAMETERS)
    assert len(evaluate(engine, train, test, PARAMETERS, 10, ["als", "popularity"], served=same)) == 2


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
