"""Judging algorithms on what they were not shown, and choosing the one to publish.

Full ranking: every product of the training data that a shopper has not met is a candidate. Ranking against a
sample of them instead can put algorithms in the wrong order (Krichene and Rendle, "On Sampled Metrics for
Item Recommendation", KDD 2020).
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import stdtr

from clickstream_assets.catalogue import MODEL_EVALUATION
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.recommender.algorithms import ALGORITHMS, TrainingSet, fit, products_of
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
    last_day,
    split_by_time,
)
from clickstream_assets.recommender.parameters import USUAL_WEIGHTS, EventWeights, Parameters
from clickstream_assets.recommender.popularity import PopularityModel, latest_categories
from clickstream_assets.recommender.ranking import (
    FloatArray,
    Histories,
    Model,
    best,
    histories,
)

METRICS = ("ndcg", "map", "precision", "recall")
DECISIVE = "ndcg"
"""The metric that decides what is published."""
BASELINE = PopularityModel.algorithm
"""The algorithm that has to be beaten."""
# The t-test leans on the mean of the differences being close to normal; 30 is the usual rule of thumb for it.
LEAST_USERS = 30
SIGNIFICANCE = 0.05
# What training and ranking read of an interaction; the rest would be in memory for nothing.
_TRAINED_ON = ("user_id", "product_id", "strength", "add_to_carts", "purchases", "last_time")

_JUDGED = pa.schema(
    [
        ("user_id", pa.string()),
        *((metric, pa.float64()) for metric in METRICS),
        ("listed", pa.list_(pa.int32())),
    ]
)


class GateError(ClickstreamError):
    """The chosen algorithm must not be published; the message says why."""


@dataclass(frozen=True)
class Evaluation:
    """One algorithm's figures; `by_user` has a row per judged user: `user_id` (in order) and each metric."""

    algorithm: str
    k: int
    by_user: pa.Table
    coverage: float
    seconds: float

    @property
    def users(self) -> int:
        """Users with something to find."""
        return self.by_user.num_rows

    def mean(self, metric: str) -> float:
        """Mean of one of `METRICS` over the judged users; 0 where there is none."""
        return float(np.mean(self.by_user[metric])) if self.users else 0.0


@dataclass(frozen=True)
class Choice:
    """The algorithm to publish; `reasons` says of each algorithm why it was or was not chosen."""

    algorithm: str
    reasons: dict[str, str]

    @property
    def reason(self) -> str:
        """Why the chosen algorithm was chosen."""
        return self.reasons[self.algorithm]


def evaluate(
    engine: Engine,
    train: DataFrame,
    test: DataFrame,
    parameters: Parameters,
    k: int,
    algorithms: Iterable[str] = tuple(ALGORITHMS),
    categories: DataFrame | None = None,
) -> list[Evaluation]:
    """Train each algorithm on `train` and judge its lists of k products by `test`.

    A user is judged who has a history in `train` and met at least one product in `test` that is known in
    `train` and that they had not met in it; these products are the relevant ones. Both parts are read several
    times: persist them first.

    Args:
        engine: where the interactions are.
        train: INTERACTIONS rows; of their columns `_TRAINED_ON` are read.
        test: INTERACTIONS rows that `train` knows nothing of; `user_id` and `product_id` are read.
        parameters: those of the algorithms.
        k: length of the lists.
        algorithms: names from `ALGORITHMS`.
        categories: `product_id` and `product_category`, as they are known when training ends.

    Raises:
        NotEnoughInteractions: there is nothing to train on.
    """
    products = products_of(engine, train, parameters.trend_days, categories)
    data = TrainingSet.of(engine, train, parameters, products)
    tasks = engine.persist(_tasks(data.interactions, test))
    try:
        return [_evaluate(data, algorithm, tasks, k) for algorithm in algorithms]
    finally:
        engine.release(tasks)


def judge(
    engine: Engine,
    days: DataFrame,
    events: DataFrame,
    parameters: Parameters,
    test_fraction: float,
    k: int,
    serving: str | None = None,
    weights: EventWeights = USUAL_WEIGHTS,
    product_days: DataFrame | None = None,
) -> tuple[list[Evaluation], Choice]:
    """Split events by time, evaluate every algorithm and choose: popularity, where there is too little.

    Args:
        engine, parameters, k: as for `evaluate`.
        days, events, test_fraction: as for `split_by_time`.
        serving: name of the algorithm being served now, if any.
        weights: what events are worth.
        product_days: PRODUCT_PERFORMANCE rows of the days, for the products' categories; those after the day that is
            cut are not looked at.
    """
    try:
        with ExitStack() as held:

            def persist(df: DataFrame) -> DataFrame:
                persisted = engine.persist(df)
                held.callback(engine.release, persisted)
                return persisted

            past, future = split_by_time(engine, days, events, test_fraction)
            train = persist(interactions(past, weights).select(*_TRAINED_ON))
            test = persist(future.select("user_id", "product_id").distinct())
            categories = product_days and latest_categories(product_days, last_day(engine, past))
            evaluations = evaluate(engine, train, test, parameters, k, categories=categories)
    except NotEnoughInteractions as error:
        nobody = Evaluation(BASELINE, k, _JUDGED.empty_table().drop_columns("listed"), coverage=0, seconds=0)
        return [nobody], Choice(BASELINE, {BASELINE: str(error)})
    return evaluations, choose(evaluations, serving)


def chosen_algorithm(rows: list[dict[str, Any]]) -> str:
    """Return the algorithm that MODEL_EVALUATION rows choose.

    Raises:
        GateError: not exactly one is chosen, or it ranks worse than popularity.
    """
    chosen = [row for row in rows if row["chosen"]]
    if len(chosen) != 1:
        raise GateError(f"{len(chosen)} algorithms are chosen in model_evaluation, instead of one")
    baselines = [row[DECISIVE] for row in rows if row["algorithm"] == BASELINE]
    if baselines and chosen[0][DECISIVE] < baselines[0]:
        raise GateError(
            f"{chosen[0]['algorithm']} is chosen with nDCG {chosen[0]['ndcg']:.4f}, and popularity has "
            f"{baselines[0]:.4f}: not to be published"
        )
    return chosen[0]["algorithm"]


def _tasks(train: DataFrame, test: DataFrame) -> DataFrame:
    """Make a row per judged user: `user_id`, `met` (their history) and `relevant` (what is to be found)."""
    functions, _ = functions_of(train)
    relevant = (
        test.select("user_id", "product_id")
        .join(train.select("product_id").distinct(), "product_id", "left_semi")
        .join(train.select("user_id", "product_id"), ["user_id", "product_id"], "left_anti")
        .groupBy("user_id")
        .agg(functions.collect_list("product_id").alias("relevant"))
    )
    return histories(train).join(relevant, "user_id").select("user_id", "met", "relevant")


def _evaluate(data: TrainingSet, algorithm: str, tasks: DataFrame, k: int) -> Evaluation:
    engine = data.engine
    start = time.perf_counter()
    model = fit(algorithm, data)
    lists = engine.map_arrow(tasks, partial(_judge_batches, model=model, k=k), _JUDGED)
    judged = engine.to_arrow(lists)
    engine.release(lists)
    seconds = time.perf_counter() - start
    listed = len(pc.unique(pc.list_flatten(judged["listed"])))
    return Evaluation(
        algorithm=algorithm,
        k=k,
        by_user=judged.drop_columns("listed").sort_by("user_id"),
        coverage=listed / len(model.products) if len(model.products) else 0.0,
        seconds=seconds,
    )


def _judge_batches(batches: Iterator[pa.RecordBatch], model: Model, k: int) -> Iterator[pa.RecordBatch]:
    for block in Histories.blocks(batches, model.products):
        picked = best(model, block, k).products
        relevant = block.rows.column("relevant")
        counts = pc.list_value_length(relevant).to_numpy()
        # A pair of shopper and product is one number.
        first = np.arange(len(counts)) * len(model.products)
        wanted = np.repeat(first, counts) + model.products.positions(relevant.flatten())
        hits = np.isin(picked + first[:, None], wanted) & (picked >= 0)
        figures = rank_metrics(hits, counts, k)
        listed = pa.array([row[row >= 0] for row in picked], _JUDGED.field("listed").type)
        columns = [figures[metric] for metric in METRICS]
        yield pa.record_batch([block.rows.column("user_id"), *columns, listed], schema=_JUDGED)


def rank_metrics(hits: np.ndarray, relevant: np.ndarray | int, k: int) -> dict[str, FloatArray]:
    """Judge lists.

    - ndcg: sum of 1 / log2(1 + rank) over the hits, divided by the same sum of an ideal list, whose first
      min(k, relevant) ranks are hits (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002; binary gains).
    - map: average precision, the sum of precision@rank over the hits, divided by the number of relevant
      products (Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.4).
    - precision: hits / k, also where the list is shorter than k.
    - recall: hits / relevant.

    Args:
        hits: [..., ranks], per rank of each list, best first, whether it is relevant; at most k.
        relevant: [...], how many products there were to find; at least 1.
        k: the length asked for.

    Returns:
        [...] by metric.
    """
    ranks = np.arange(1, hits.shape[-1] + 1)
    found = hits.sum(axis=-1)
    ideal = np.concatenate(([0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))))
    precisions = np.cumsum(hits, axis=-1) / ranks
    return {
        "ndcg": (hits / np.log2(1 + ranks)).sum(axis=-1) / ideal[np.minimum(k, relevant)],
        "map": (hits * precisions).sum(axis=-1) / relevant,
        "precision": found / k,
        "recall": found / relevant,
    }


def choose(evaluations: Sequence[Evaluation], serving: str | None = None) -> Choice:
    """Choose what to publish: the best personal algorithm that surely beats popularity, or else popularity.

    "Surely" is a paired one-sided t-test over the users at 5 % (for this test on rankings: Smucker, Allan and
    Carterette, "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM
    2007), with at least 30 users. What is being served stays as long as nothing chosen that way is better on
    the same split.

    Args:
        evaluations: of one split, popularity among them.
        serving: name of the algorithm being served now, if any.
    """
    by_name = {evaluation.algorithm: evaluation for evaluation in evaluations}
    base = by_name[BASELINE]
    comparisons = {
        name: _compare(evaluation, base) for name, evaluation in by_name.items() if name != BASELINE
    }
    proven = [by_name[name] for name, (better, _) in comparisons.items() if better]
    best = max(proven, key=lambda evaluation: evaluation.mean(DECISIVE), default=base)
    stays = serving in by_name and by_name[serving].mean(DECISIVE) > best.mean(DECISIVE)
    chosen = by_name[serving] if serving and stays else best

    if proven or stays:
        verdict = f"{_figure(chosen)} is better than {_figure(base)}"
    else:
        verdict = "no algorithm is sure to be better: " + "; ".join(text for _, text in comparisons.values())
    scale = f"{DECISIVE}@{base.k} over {base.users:,} users"
    reasons = {BASELINE: f"{scale}: {verdict}"}
    for name, (_, comparison) in comparisons.items():
        verdict = comparison
        if name == chosen.algorithm and stays:
            verdict += f"; it is being served, and nothing that is sure to be better than {BASELINE} beats it"
        elif name != chosen.algorithm and chosen is not base:
            verdict += f"; {_figure(chosen)} is chosen"
        reasons[name] = f"{scale}: {verdict}"
    return Choice(chosen.algorithm, reasons)


def _figure(evaluation: Evaluation) -> str:
    return f"{evaluation.algorithm} {evaluation.mean(DECISIVE):.4f}"


def _compare(evaluation: Evaluation, base: Evaluation) -> tuple[bool, str]:
    """Return whether an algorithm surely beats the baseline, and the comparison in words."""
    pair = f"{_figure(evaluation)} against {_figure(base)}"
    if base.users < LEAST_USERS:
        return False, f"{pair}, which takes at least {LEAST_USERS} users to judge"
    ours, theirs = (judged.by_user[DECISIVE].to_numpy() for judged in (evaluation, base))
    if np.array_equal(ours, theirs):
        return False, f"{pair}, the same for every user"
    p_value = chance_of_no_difference(ours, theirs)
    p_text = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    better = p_value < SIGNIFICANCE
    return better, f"{pair}, {'better' if better else 'not surely better'} ({p_text})"


def chance_of_no_difference(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the p-value of Student's paired t-test, one-sided: that ours would be so much better by chance alone.

    The same as `scipy.stats.ttest_rel(ours, theirs, alternative="greater")`, which takes a second to import.
    """
    difference = ours - theirs
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    if error == 0:
        return 0.0 if difference.mean() > 0 else 1.0
    return float(stdtr(len(difference) - 1, -difference.mean() / error))


def evaluation_table(evaluations: Sequence[Evaluation], choice: Choice, model_version: str) -> pa.Table:
    """Make MODEL_EVALUATION rows, one per algorithm."""
    rows = [
        {
            "model_version": model_version,
            "algorithm": evaluation.algorithm,
            "k": evaluation.k,
            "users": evaluation.users,
            **{metric: evaluation.mean(metric) for metric in METRICS},
            "coverage": evaluation.coverage,
            "seconds": evaluation.seconds,
            "chosen": evaluation.algorithm == choice.algorithm,
            "reason": choice.reasons[evaluation.algorithm],
        }
        for evaluation in evaluations
    ]
    return pa.Table.from_pylist(rows, schema=MODEL_EVALUATION.arrow)
