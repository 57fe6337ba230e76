"""Judging algorithms on what they were not shown, and choosing the one to publish.

Full ranking: every product of the training data that a shopper may be shown is a candidate. Ranking against a
sample of them instead can put algorithms in the wrong order (Krichene and Rendle, "On Sampled Metrics for
Item Recommendation", KDD 2020).

Three questions are asked of a list, each a target: what a known shopper turns to that is new to them (`next`), what a
shopper without a history turns to (`new`), and what a known shopper buys, again or for the first time (`purchases`).
Of the pairs of shopper and product in the test part each covers a share, which is said with its figures.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix
from scipy.special import stdtr

from clickstream_assets.catalogue import MODEL_EVALUATION
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of
from clickstream_assets.errors import ClickstreamError
from clickstream_assets.recommender.algorithms import (
    ALGORITHMS,
    BUY_AGAIN,
    TRENDING,
    TrainingSet,
    fit,
    products_of,
)
from clickstream_assets.recommender.interactions import (
    interactions,
    last_day,
)
from clickstream_assets.recommender.metrics import METRICS, hits_of, rank_metrics
from clickstream_assets.recommender.parameters import USUAL_WEIGHTS, EventWeights, Parameters
from clickstream_assets.recommender.popularity import PopularityModel, latest_categories
from clickstream_assets.recommender.ranking import (
    FloatArray,
    Histories,
    Model,
    best,
    histories,
    top_n_of_rows,
)

Target: TypeAlias = Literal["next", "new", "purchases"]
"""What a list is judged by."""
TARGETS: dict[Target, tuple[str, ...]] = {
    "next": tuple(name for name in ALGORITHMS if name != BUY_AGAIN),
    "new": (TRENDING, PopularityModel.algorithm),
    "purchases": tuple(ALGORITHMS),
}
"""The algorithms that are judged by each; `new` is for those that need no history."""

DECISIVE = "ndcg"
"""The metric that decides what is published."""
BASELINE = PopularityModel.algorithm
"""The algorithm that has to be beaten."""
SERVED = "served"
"""The name of what is being served, where it has other parameters than what is tried."""
# The t-test leans on the mean of the differences being close to normal; 30 is the usual rule of thumb for it.
LEAST_USERS = 30
# Where fewer users' lists differ, their signs alone are by chance the same too often for it.
LEAST_DIFFERENT = 10
RESAMPLES = 1000
# What training and ranking read of an interaction; the rest would be in memory for nothing.
_TRAINED_ON = (
    *("user_id", "product_id", "strength", "add_to_carts", "purchases", "last_time"),
    *("purchase_days", "first_purchase", "last_purchase"),
)

_JUDGED = pa.schema(
    [
        ("user_id", pa.string()),
        *((metric, pa.float64()) for metric in METRICS),
        ("relevant", pa.int64()),
        ("met", pa.int64()),
        ("listed", pa.list_(pa.int32())),
    ]
)


class GateError(ClickstreamError):
    """The chosen algorithm must not be published; the message says why."""


@dataclass(frozen=True)
class Contender:
    """An algorithm with its parameters; `is_served` where it is served with these, and others are tried."""

    algorithm: str
    parameters: Parameters
    is_served: bool = False


@dataclass(frozen=True)
class Evaluation:
    """One algorithm's figures for one target.

    Attributes:
        algorithm: Its name.
        k: Length of the lists.
        by_user: A row per judged user: `user_id` (in order), each metric, `relevant` (how many there were to find) and
            `met` (the length of the history).
        coverage: Share of all products that appear in some list.
        seconds: Training and ranking time.
        target: What it was judged by.
        share: Share of the test part's pairs of user and product that are judged.
        novelty: Mean -log2 of the share of users who had met a listed product.
        parameters: Those it was trained with.
        is_served: Whether it is what is being served, beside others.
    """

    algorithm: str
    k: int
    by_user: pa.Table
    coverage: float
    seconds: float
    target: Target = "next"
    share: float = 0.0
    novelty: float = 0.0
    parameters: Parameters | None = None
    is_served: bool = False

    @property
    def name(self) -> str:
        """What comparisons call it."""
        return SERVED if self.is_served else self.algorithm

    @property
    def users(self) -> int:
        """Users with something to find."""
        return self.by_user.num_rows

    @property
    def pairs(self) -> int:
        """Pairs of user and product to find."""
        return pc.sum(self.by_user["relevant"]).as_py() or 0

    def mean(self, metric: str) -> float:
        """Mean of one of `METRICS` over the judged users; 0 where there is none."""
        return float(np.mean(self.by_user[metric])) if self.users else 0.0

    def by_activity(self) -> list[dict[str, Any]]:
        """Return the decisive metric by how much the users had met: thirds of them, least active first."""
        met, values = (self.by_user[name].to_numpy() for name in ("met", DECISIVE))
        parts = np.array_split(np.argsort(met, kind="stable"), 3)
        return [
            {
                "met_from": int(met[part].min()),
                "met_to": int(met[part].max()),
                "users": len(part),
                DECISIVE: float(values[part].mean()),
            }
            for part in parts
            if len(part)
        ]


@dataclass(frozen=True)
class Choice:
    """The algorithm to publish; `reasons` says of each contender, by its name, why it was or was not chosen."""

    algorithm: str
    reasons: dict[str, str]
    name: str = ""

    @property
    def chosen(self) -> str:
        """The chosen contender's name."""
        return self.name or self.algorithm

    @property
    def reason(self) -> str:
        """Why the chosen algorithm was chosen."""
        return self.reasons[self.chosen]


def interval(values: FloatArray, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Return the bootstrap interval of a mean: its percentiles over samples of the users, drawn with replacement.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. (0, 0) where there are no values.
    """
    if not len(values):
        return 0.0, 0.0
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def evaluate(
    engine: Engine,
    train: DataFrame,
    test: DataFrame,
    parameters: Parameters,
    k: int,
    algorithms: Iterable[str] | None = None,
    categories: DataFrame | None = None,
    target: Target = "next",
    served: Contender | None = None,
    data: TrainingSet | None = None,
    most: int | None = None,
) -> list[Evaluation]:
    """Train each algorithm on `train` and judge its lists of k products by `test`.

    - `next`: a user is judged who has a history in `train` and met at least one product in `test` that is known in
      `train` and that they had not met in it; these products are the relevant ones, and what was met is not listed.
    - `purchases`: a user is judged who has a history and bought a product in `test` that is known in `train`, met
      before or not.
    - `new`: a user is judged who has no history, by the products that they met in `test` and that are known.

    Both parts are read several times: persist them first.

    Args:
        engine: where the interactions are.
        train: INTERACTIONS rows; of their columns `_TRAINED_ON` are read.
        test: INTERACTIONS rows that `train` knows nothing of; `user_id`, `product_id` and `purchases` are read.
        parameters: those of the algorithms.
        k: length of the lists.
        algorithms: names from `ALGORITHMS` (default: those of the target).
        categories: `product_id` and `product_category`, as they are known when training ends.
        target: what is to be found.
        served: what is being served, judged too where it is none of the others.
        data: the training set of `train`, where others have been judged on it too, so that nothing is learnt twice.
        most: users with a history that are judged at most, a sample by a hash of their ids (default: all). The share
            of the pairs is that of all.

    Raises:
        NotEnoughInteractions: there is nothing to train on.
    """
    data = data or TrainingSet.of(
        engine, train, parameters, products_of(engine, train, parameters.trend_days, categories)
    )
    contenders = [Contender(name, parameters) for name in algorithms or TARGETS[target]]
    if served and served not in contenders:
        contenders.append(replace(served, is_served=True))
    pairs = test.select("user_id", "product_id").distinct().count()
    users = train.select("user_id").distinct().count()
    evaluations = []
    with ExitStack() as held:
        tasks_of: dict[Any, DataFrame] = {}
        relevant = engine.persist(_relevant(train, test, target))
        held.callback(engine.release, relevant)
        share = _pairs_of(engine, relevant) / pairs if pairs else 0.0
        if most is not None and target != "new":
            relevant = engine.persist(_sample(relevant, most))
            held.callback(engine.release, relevant)
        for contender in contenders:
            start = time.perf_counter()
            its = data
            if contender.parameters != parameters:
                its = TrainingSet.of(engine, train, contender.parameters, data.products)
            model = fit(contender.algorithm, its)
            if target == "new":
                judged = _judge_strangers(engine, model, relevant, k)
            else:
                if model.ageing not in tasks_of:
                    tasks = engine.persist(_tasks(train, model.ageing.of(train), relevant))
                    tasks_of[model.ageing] = tasks
                    held.callback(engine.release, tasks)
                judge_batches = partial(_judge_batches, model=model, k=k, is_met_left_out=target == "next")
                lists = engine.map_arrow(tasks_of[model.ageing], judge_batches, _JUDGED)
                judged = engine.to_arrow(lists)
                engine.release(lists)
            evaluations.append(
                _evaluation(contender, model, judged, k, target, share, users, time.perf_counter() - start)
            )
    return evaluations


def _evaluation(
    contender: Contender,
    model: Model,
    judged: pa.Table,
    k: int,
    target: Target,
    share: float,
    users: int,
    seconds: float,
) -> Evaluation:
    products = model.products
    # In one order, whatever order they came in: the last digit of a mean depends on it.
    judged = judged.sort_by("user_id")
    listed = pc.list_flatten(judged["listed"]).to_numpy()
    novelty = -np.log2(products.shoppers[listed] / users).mean() if len(listed) else 0.0
    return Evaluation(
        algorithm=contender.algorithm,
        k=k,
        by_user=judged.drop_columns("listed"),
        coverage=len(np.unique(listed)) / len(products) if len(products) else 0.0,
        seconds=seconds,
        target=target,
        share=share,
        novelty=float(novelty),
        parameters=contender.parameters,
        is_served=contender.is_served,
    )


def judge(
    engine: Engine,
    past: DataFrame,
    future: DataFrame,
    parameters: Parameters,
    k: int,
    weights: EventWeights = USUAL_WEIGHTS,
    product_days: DataFrame | None = None,
    served: Contender | None = None,
    targets: Iterable[Target] = tuple(TARGETS),
    most: int | None = None,
) -> dict[Target, list[Evaluation]]:
    """Evaluate every algorithm on a cut in time, for each target.

    Args:
        engine, parameters, k, most: as for `evaluate`.
        past, future: INTERACTION_DAYS rows before and after the cut.
        weights: what events are worth.
        product_days: PRODUCT_PERFORMANCE rows of the days, for the products' categories; those after the last day of
            the past are not looked at.
        served: the algorithm that is being served and its parameters, if any; it is judged for `next`.
        targets: those to judge for.

    Raises:
        NotEnoughInteractions: there is nothing to train on.
    """
    with ExitStack() as held:

        def persist(df: DataFrame) -> DataFrame:
            persisted = engine.persist(df)
            held.callback(engine.release, persisted)
            return persisted

        train = persist(interactions(past, weights).select(*_TRAINED_ON))
        test = persist(interactions(future, weights).select("user_id", "product_id", "purchases"))
        categories = None
        if product_days is not None:
            categories = persist(latest_categories(product_days, last_day(engine, past)))
        return evaluate_targets(engine, train, test, parameters, k, categories, served, targets, most)


def evaluate_targets(
    engine: Engine,
    train: DataFrame,
    test: DataFrame,
    parameters: Parameters,
    k: int,
    categories: DataFrame | None = None,
    served: Contender | None = None,
    targets: Iterable[Target] = tuple(TARGETS),
    most: int | None = None,
) -> dict[Target, list[Evaluation]]:
    """Judge for each target what is learnt once; arguments as for `evaluate`; `served` is judged for `next`."""
    products = products_of(engine, train, parameters.trend_days, categories)
    data = TrainingSet.of(engine, train, parameters, products)
    return {
        target: evaluate(
            engine,
            train,
            test,
            parameters,
            k,
            target=target,
            served=served if target == "next" else None,
            data=data,
            most=most,
        )
        for target in targets
    }


def nobody(k: int, reason: str) -> tuple[list[Evaluation], Choice]:
    """Return what is chosen where there is nothing to judge on: popularity."""
    empty = _JUDGED.empty_table().drop_columns("listed")
    return [Evaluation(BASELINE, k, empty, coverage=0, seconds=0)], Choice(BASELINE, {BASELINE: reason})


def chosen_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the one of MODEL_EVALUATION's rows that is chosen for `next`, which decides what is published.

    Raises:
        GateError: not exactly one is chosen, or it ranks worse than popularity.
    """
    rows = [row for row in rows if row["target"] == "next"]
    chosen = [row for row in rows if row["chosen"]]
    if len(chosen) != 1:
        raise GateError(f"{len(chosen)} algorithms are chosen in model_evaluation, instead of one")
    baselines = [row[DECISIVE] for row in rows if row["algorithm"] == BASELINE]
    if baselines and chosen[0][DECISIVE] < baselines[0]:
        raise GateError(
            f"{chosen[0]['algorithm']} is chosen with nDCG {chosen[0]['ndcg']:.4f}, and popularity has "
            f"{baselines[0]:.4f}: not to be published"
        )
    return chosen[0]


def _relevant(train: DataFrame, test: DataFrame, target: Target) -> DataFrame:
    """Make a row per user with something to find: `user_id` and `relevant`, the products."""
    functions, _ = functions_of(train)
    if target == "purchases":
        test = test.where(functions.col("purchases") > 0)
    found = test.select("user_id", "product_id").join(
        train.select("product_id").distinct(), "product_id", "left_semi"
    )
    if target == "next":
        found = found.join(train.select("user_id", "product_id"), ["user_id", "product_id"], "left_anti")
    is_known = "left_anti" if target == "new" else "left_semi"
    found = found.join(train.select("user_id").distinct(), "user_id", is_known)
    return found.groupBy("user_id").agg(functions.collect_set("product_id").alias("relevant"))


def _pairs_of(engine: Engine, relevant: DataFrame) -> int:
    functions, _ = functions_of(relevant)
    pairs = relevant.agg(functions.sum(functions.size("relevant")).cast("long").alias("pairs"))
    return engine.to_arrow(pairs)["pairs"][0].as_py() or 0


def _sample(relevant: DataFrame, most: int) -> DataFrame:
    """Return as many users at most, those whose ids' hashes are least: the same whatever order they come in."""
    functions, _ = functions_of(relevant)
    hashed = as_view(relevant.withColumn("hash", functions.sha2(functions.col("user_id"), 256)))
    return as_view(hashed.orderBy("hash").limit(most)).drop("hash")


def _tasks(train: DataFrame, aged: DataFrame, relevant: DataFrame) -> DataFrame:
    """Make a row per judged user: `user_id`, `met` (their aged history), `relevant`, `size` (of the whole history)."""
    functions, _ = functions_of(train)
    sizes = train.groupBy("user_id").agg(functions.count(functions.lit(1)).cast("long").alias("size"))
    return (
        relevant.join(sizes, "user_id")
        .join(histories(aged), "user_id", "left")
        .select("user_id", "met", "relevant", "size")
    )


def _judge_batches(
    batches: Iterator[pa.RecordBatch], model: Model, k: int, is_met_left_out: bool
) -> Iterator[pa.RecordBatch]:
    for block in Histories.blocks(batches, model.products):
        picked = best(model, block, k, is_met_left_out=is_met_left_out).products
        yield _judged(
            block.rows.column("user_id"),
            picked,
            _matrix(block.rows.column("relevant"), model),
            block.rows.column("size"),
            k,
        )


def _judge_strangers(engine: Engine, model: Model, relevant: DataFrame, k: int) -> pa.Table:
    """Judge the one list that all users without a history are shown."""
    [rows] = engine.to_arrow(relevant).combine_chunks().to_batches() or [None]
    if rows is None:
        return _JUDGED.empty_table()
    nothing = csr_matrix((1, len(model.products)))
    picked = np.repeat(top_n_of_rows(model.scores(nothing), k).products, rows.num_rows, axis=0)
    sizes = pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows)
    judged = _judged(rows.column("user_id"), picked, _matrix(rows.column("relevant"), model), sizes, k)
    return pa.Table.from_batches([judged])


def _matrix(relevant: pa.ListArray, model: Model) -> csr_matrix:
    counts = pc.list_value_length(relevant).to_numpy()
    positions = model.products.positions(relevant.flatten())
    ends = np.concatenate(([0], np.cumsum(counts)))
    return csr_matrix((np.ones(len(positions)), positions, ends), shape=(len(counts), len(model.products)))


def _judged(
    users: pa.Array, picked: np.ndarray, relevant: csr_matrix, sizes: pa.Array, k: int
) -> pa.RecordBatch:
    hits, counts = hits_of(picked, relevant)
    figures = rank_metrics(hits, counts, k)
    listed = pa.array([row[row >= 0] for row in picked], _JUDGED.field("listed").type)
    columns = [figures[metric] for metric in METRICS]
    return pa.record_batch([users, *columns, counts.astype(np.int64), sizes, listed], schema=_JUDGED)


def is_judged(evaluations: Sequence[Evaluation]) -> bool:
    """Say whether there are enough users for a look to say anything."""
    return evaluations[0].users >= LEAST_USERS


def choose(evaluations: Sequence[Evaluation], significance: float, served: str | None = None) -> Choice:
    """Choose what to publish: the best personal algorithm that is surely better than what is served, or else that.

    "Surely" is a paired one-sided t-test over the users (for this test on rankings: Smucker, Allan and Carterette, "A
    Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007), at the chance of a
    false alarm that this look is allowed (`gate`), divided by the number of algorithms that are compared. Where a
    personal algorithm is served that popularity beats, or none, popularity is what they are compared with.

    Args:
        evaluations: of one split, for one target, popularity among them.
        significance: chance of a false alarm; 0 where there is nothing new to judge by, so that what is served stays.
        served: name of the evaluation of what is being served, if any.
    """
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    base = by_name[BASELINE]
    incumbent = by_name.get(served or BASELINE, base)
    # Equal is not worse.
    if incumbent.mean(DECISIVE) < base.mean(DECISIVE):
        incumbent = base
    contenders = [e for e in evaluations if e.name not in (BASELINE, incumbent.name, TRENDING, SERVED)]
    each = significance / max(1, len(contenders))
    comparisons = {e.name: _compare(e, incumbent, each) for e in contenders}
    proven = [
        by_name[name]
        for name, (is_better, _) in comparisons.items()
        if is_better and by_name[name].mean(DECISIVE) >= base.mean(DECISIVE)
    ]
    chosen = max(proven, key=lambda evaluation: evaluation.mean(DECISIVE), default=incumbent)

    scale = f"{DECISIVE}@{base.k} over {base.users:,} users"
    reasons = {e.name: f"{scale}: {_figure(e)}; {_figure(chosen)} is chosen" for e in evaluations}
    for name, (_, comparison) in comparisons.items():
        reasons[name] = f"{scale}: {comparison}"
        if name != chosen.name and chosen is not base:
            reasons[name] += f"; {_figure(chosen)} is chosen"
    if chosen is incumbent:
        texts = "; ".join(text for _, text in comparisons.values())
        stays = "" if chosen is base else f"{_figure(chosen)} is being served, and "
        reasons[chosen.name] = f"{scale}: {stays}no algorithm is sure to be better: {texts}"
    return Choice(chosen.algorithm, reasons, chosen.name)


def _figure(evaluation: Evaluation) -> str:
    return f"{evaluation.name} {evaluation.mean(DECISIVE):.4f}"


def _compare(evaluation: Evaluation, incumbent: Evaluation, significance: float) -> tuple[bool, str]:
    """Return whether an algorithm is surely better than another, and the comparison in words."""
    pair = f"{_figure(evaluation)} against {_figure(incumbent)}"
    if incumbent.users < LEAST_USERS:
        return False, f"{pair}, which takes at least {LEAST_USERS} users to judge"
    ours, theirs = (judged.by_user[DECISIVE].to_numpy() for judged in (evaluation, incumbent))
    different = int((ours != theirs).sum())
    if not different:
        return False, f"{pair}, the same for every user"
    if different < LEAST_DIFFERENT:
        return False, f"{pair}, different for {different} users, of {LEAST_DIFFERENT} that it takes to judge"
    p_value = chance_of_no_difference(ours, theirs)
    p_text = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
    if not significance:
        return False, f"{pair} ({p_text}), too little is new since the last look"
    better = p_value < significance
    return better, f"{pair}, {'better' if better else 'not surely better'} ({p_text}, of {significance:.2g})"


def chance_of_no_difference(ours: FloatArray, theirs: FloatArray) -> float:
    """Return the p-value of Student's paired t-test, one-sided: that ours would be so much better by chance alone.

    The same as `scipy.stats.ttest_rel(ours, theirs, alternative="greater")`, which takes a second to import.
    """
    difference = ours - theirs
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    if error == 0:
        return 0.0 if difference.mean() > 0 else 1.0
    return float(stdtr(len(difference) - 1, -difference.mean() / error))


def evaluation_table(
    evaluations: Iterable[Evaluation], choices: Mapping[Target, Choice], model_version: str, seed: int
) -> pa.Table:
    """Make MODEL_EVALUATION rows, one per algorithm and target."""
    rows = []
    for evaluation in evaluations:
        choice = choices.get(evaluation.target)
        low, high = interval(evaluation.by_user[DECISIVE].to_numpy(), seed)
        rows.append(
            {
                "model_version": model_version,
                "target": evaluation.target,
                "algorithm": evaluation.algorithm,
                "is_served": evaluation.is_served,
                "parameters": evaluation.parameters.as_json if evaluation.parameters else "{}",
                "k": evaluation.k,
                "users": evaluation.users,
                "pairs": evaluation.pairs,
                "share": evaluation.share,
                "ndcg_low": low,
                "ndcg_high": high,
                **{metric: evaluation.mean(metric) for metric in METRICS},
                "coverage": evaluation.coverage,
                "novelty": evaluation.novelty,
                "seconds": evaluation.seconds,
                "chosen": bool(choice and choice.chosen == evaluation.name),
                "reason": choice.reasons[evaluation.name] if choice else "",
            }
        )
    return pa.Table.from_pylist(rows, schema=MODEL_EVALUATION.arrow)
