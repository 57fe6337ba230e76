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
from clickstream_assets.recommender.algorithms import ALGORITHMS, fit, products_of
from clickstream_assets.recommender.als import Parameters
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
    split_by_time,
)
from clickstream_assets.recommender.popularity import PopularityModel
from clickstream_assets.recommender.ranking import (
    FloatArray,
    Histories,
    Model,
    Products,
    best_unmet,
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
_TRAINED_ON = ("user_id", "product_id", "strength", "add_to_carts", "purchases")

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
) -> list[Evaluation]:
    """Train each algorithm on `train` and judge its lists of k products by `test`.

    A user is judged who has a history in `train` and met at least one product in `test` that is known in
    `train` and that they had not met in it; these products are the relevant ones. Both parts are read several
    times: persist them first.

    Args:
        engine: where the interactions are.
        train: INTERACTIONS rows; of their columns `_TRAINED_ON` are read.
        test: INTERACTIONS rows that `train` knows nothing of; `user_id` and `product_id` are read.
        parameters: for ALS.
        k: length of the lists.
        algorithms: names from `ALGORITHMS`.

    Raises:
        NotEnoughInteractions: there is nothing to train on.
    """
    products = products_of(engine, train)
    tasks = engine.persist(_tasks(train, test))
    try:
        return [
            _evaluate(engine, algorithm, train, products, tasks, parameters, k) for algorithm in algorithms
        ]
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
) -> tuple[list[Evaluation], Choice]:
    """Split events by time, evaluate every algorithm and choose: popularity, where there is too little.

    Args:
        engine, parameters, k: as for `evaluate`.
        days, events, test_fraction: as for `split_by_time`.
        serving: name of the algorithm being served now, if any.
    """
    try:
        with ExitStack() as held:

            def persist(df: DataFrame) -> DataFrame:
                persisted = engine.persist(df)
                held.callback(engine.release, persisted)
                return persisted

            past, future = split_by_time(engine, days, events, test_fraction)
            train = persist(interactions(past).select(*_TRAINED_ON))
            test = persist(future.select("user_id", "product_id").distinct())
            evaluations = evaluate(engine, train, test, parameters, k)
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


def _evaluate(
    engine: Engine,
    algorithm: str,
    train: DataFrame,
    products: Products,
    tasks: DataFrame,
    parameters: Parameters,
    k: int,
) -> Evaluation:
    start = time.perf_counter()
    model = fit(algorithm, engine, train, parameters, products)
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
        relevant = block.rows.column("relevant")
        figures, listed = [], []
        for shopper, (picked, _) in enumerate(best_unmet(model, block, k)):
            wanted = model.products.positions(relevant[shopper].values)
            figures.append(rank_metrics(np.isin(picked, wanted), len(wanted), k))
            listed.append(picked)
        columns = [[row[metric] for row in figures] for metric in METRICS]
        yield pa.record_batch([block.rows.column("user_id"), *columns, listed], schema=_JUDGED)


def rank_metrics(hits: np.ndarray, relevant: int, k: int) -> dict[str, float]:
    """Judge one list.

    - ndcg: sum of 1 / log2(1 + rank) over the hits, divided by the same sum of an ideal list, whose first
      min(k, relevant) ranks are hits (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002; binary gains).
    - map: average precision, the sum of precision@rank over the hits, divided by the number of relevant
      products (Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.4).
    - precision: hits / k, also where the list is shorter than k.
    - recall: hits / relevant.

    Args:
        hits: per rank of the list, best first, whether it is relevant; at most k.
        relevant: how many products there were to find; at least 1.
        k: the length asked for.
    """
    ranks = np.flatnonzero(hits) + 1
    ideal = np.arange(1, min(k, relevant) + 1)
    found = np.arange(1, len(ranks) + 1)
    return {
        "ndcg": float(np.sum(1 / np.log2(1 + ranks)) / np.sum(1 / np.log2(1 + ideal))),
        "map": float(np.sum(found / ranks) / relevant),
        "precision": len(ranks) / k,
        "recall": len(ranks) / relevant,
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
