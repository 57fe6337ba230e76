"""Parameters found by trying: a small seeded search on validation cuts inside the training part.

A cut hides the latest of what is trained on, so that nothing that models are judged by later is looked at. One group
of parameters is tried after another, the others held fixed. A value is taken only where it does better than the one
before it by more than `LEAST_GAIN` standard errors, because the best of many looks better than it is. One that does
worse by more than `CLEAR_LOSS` of them on the latest cut is not judged on the others: a race, as of Maron and Moore,
"Hoeffding Races", NIPS 1993, without their bounds.
"""

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix

from clickstream_assets.catalogue.units import DAY
from clickstream_assets.engine import DataFrame, Engine, functions_of, number_of_hex
from clickstream_assets.recommender import als, ease
from clickstream_assets.recommender.algorithms import products_of
from clickstream_assets.recommender.als import AlsModel, mean_strength
from clickstream_assets.recommender.interactions import (
    NotEnoughInteractions,
    interactions,
    last_day,
    split_by_time,
)
from clickstream_assets.recommender.metrics import hits_of, rank_metrics
from clickstream_assets.recommender.mix import height
from clickstream_assets.recommender.parameters import EventWeights, Parameters
from clickstream_assets.recommender.popularity import CategoryModel, latest_categories
from clickstream_assets.recommender.ranking import (
    LEAST_STRENGTH,
    FloatArray,
    IntArray,
    Model,
    Products,
    top_n_of_rows,
)

LEAST_GAIN = 0.5
CLEAR_LOSS = 1.0
CUTS = 2
# As many as are trained on within seconds; of a larger shop the shoppers are drawn.
MOST_INTERACTIONS = 200_000
# Of these scores three kinds are held at a time: 3 times 48 MB.
_MOST_SCORES = 12_000_000
_LEAST_SHOPPERS = 20
# What EASE takes grows with the cube of its products, and a search trains it a dozen times.
_MOST_EASE_PRODUCTS = 2000
# Of each kind of model, the scores by the best parameters and by those that are tried.
_KEPT = 2

_HALF_LIVES = (0.0, 30.0, 120.0)
_EASE_REGULARIZATIONS = (4.0, 20.0, 100.0, 500.0)
_EASE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_CATEGORY_WEIGHTS = (0.0, 0.1, 0.3, 1.0)
_TREND_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_FALLBACK_EXPONENTS = (0.0, 0.5, 1.0)


class Trial(NamedTuple):
    """What was tried, and what came of it."""

    changes: dict[str, Any]
    ndcg: float
    is_taken: bool


@dataclass(frozen=True)
class Fold:
    """What a cut leaves to train on, and what it hides, in this process.

    Attributes:
        products: The products that can be recommended.
        strengths: [shoppers, products], not aged.
        ages: Days of each of its entries.
        judged: Shoppers with something new to find.
        relevant: [judged, products], 1 where a product is to be found.
        of_new: [new shoppers, products], the same for shoppers without a history.
    """

    products: Products
    strengths: csr_matrix
    ages: FloatArray
    judged: IntArray
    relevant: csr_matrix
    of_new: csr_matrix

    @classmethod
    def of(
        cls,
        engine: Engine,
        train: DataFrame,
        test: DataFrame,
        parameters: Parameters,
        categories: DataFrame | None = None,
    ) -> Self:
        """Bring INTERACTIONS rows here: at most about `MOST_INTERACTIONS`, of shoppers drawn by their ids and the seed.

        Args:
            engine: where they are.
            train, test: INTERACTIONS rows before and after the cut.
            parameters: the seed and the days of the trend.
            categories: `product_id` and `product_category`.
        """
        total = train.count()
        share = min(1.0, MOST_INTERACTIONS / max(1, total))
        train, test = (_drawn(part, share, parameters.seed) for part in (train, test))
        products = products_of(engine, train, parameters.trend_days, categories)
        functions, _ = functions_of(train)
        micros = functions.unix_micros(functions.col("last_time")).cast("long")
        met = engine.to_arrow(train.select("user_id", "product_id", "strength", micros.alias("last")))
        found = engine.to_arrow(test.select("user_id", "product_id").distinct())
        users = pc.unique(met["user_id"]).sort()
        shape = (len(users), len(products))
        rows, columns = pc.index_in(met["user_id"], value_set=users), products.positions(met["product_id"])
        order = np.lexsort((columns, rows.to_numpy()))
        last = met["last"].to_numpy()[order]
        strengths = csr_matrix(
            (met["strength"].to_numpy()[order].astype(np.float32), (rows.to_numpy()[order], columns[order])),
            shape=shape,
        )
        ages = (last.max(initial=0) - last) / DAY
        return cls(products, strengths, ages, *_hidden(found, users, strengths, products, parameters.seed))

    def aged(self, half_life_days: float) -> csr_matrix:
        """Return the strengths as `Ageing` makes them."""
        if not half_life_days:
            return self.strengths
        aged = self.strengths.copy()
        left = np.round(aged.data * 0.5 ** (self.ages / half_life_days), 3)
        aged.data = np.maximum(left, LEAST_STRENGTH).astype(np.float32)
        return aged


def _drawn(rows: DataFrame, share: float, seed: int) -> DataFrame:
    if share >= 1:
        return rows
    functions, _ = functions_of(rows)
    digest = functions.sha2(functions.concat_ws("|", functions.lit(str(seed)), "user_id"), 256)
    number = number_of_hex(functions, functions.substring(digest, 1, 8))
    return rows.where(number < int(share * 2**32))


def _hidden(
    found: pa.Table, users: pa.Array, strengths: csr_matrix, products: Products, seed: int
) -> tuple[IntArray, csr_matrix, csr_matrix]:
    """Return who is judged, by which products, and the products of new shoppers."""
    columns = products.positions(found["product_id"])
    found, columns = found.filter(pa.array(columns >= 0)), columns[columns >= 0]
    rows = pc.fill_null(pc.index_in(found["user_id"], value_set=users), -1).to_numpy()
    is_known = rows >= 0
    size = strengths.shape[1]
    pairs = rows[is_known] * size + columns[is_known]
    entry_rows = np.repeat(np.arange(strengths.shape[0]), np.diff(strengths.indptr))
    new = np.setdiff1d(pairs, entry_rows * size + strengths.indices)
    judged = np.unique(new // size)
    most = max(_LEAST_SHOPPERS, _MOST_SCORES // max(1, size))
    if len(judged) > most:
        judged = np.sort(np.random.default_rng(seed).choice(judged, most, replace=False))
    new = new[np.isin(new // size, judged)]
    at = np.searchsorted(judged, new // size), new % size
    relevant = csr_matrix((np.ones(len(new)), at), shape=(len(judged), size))
    names = found["user_id"].filter(pa.array(~is_known))
    strangers = pc.unique(names).sort()
    at = pc.index_in(names, value_set=strangers).to_numpy(), columns[~is_known]
    of_new = csr_matrix((np.ones(len(at[0])), at), shape=(len(strangers), size))
    return judged, relevant, of_new


@dataclass(frozen=True)
class Found:
    """The parameters, what was tried, and how many shoppers judged it."""

    parameters: Parameters
    trials: tuple[Trial, ...]
    shoppers: int


@dataclass
class _Parts:
    """Scores of the judged shoppers of a fold by the models of a blend, each as high as the others."""

    fold: Fold
    kept: dict[str, OrderedDict[tuple, FloatArray]] = field(default_factory=dict)

    def ndcg(self, parameters: Parameters, k: int) -> FloatArray:
        """[judged], of the blend by these parameters."""
        p = parameters
        sum_of = np.zeros((len(self.fold.judged), len(self.fold.products)), np.float32)
        if p.ease_share < 1:
            sum_of += np.float32(1 - p.ease_share) * self._als(p)
        if p.ease_share > 0:
            sum_of += np.float32(p.ease_share) * self._ease(p)
        if p.category_weight:
            sum_of += np.float32(p.category_weight) * self._category(p)
        sum_of *= (self.fold.products.trend**p.trend_exponent).astype(np.float32)
        met = self.fold.strengths[self.fold.judged]
        sum_of[np.repeat(np.arange(met.shape[0]), np.diff(met.indptr)), met.indices] = -np.inf
        picked = top_n_of_rows(sum_of, k).products
        return rank_metrics(*hits_of(picked, self.fold.relevant), k)["ndcg"]

    def _als(self, p: Parameters) -> FloatArray:
        def made(strengths: csr_matrix) -> AlsModel:
            _, vectors = als.factorise(strengths, p)
            confidence = p.alpha / mean_strength(strengths)
            return AlsModel(self.fold.products, vectors.astype(np.float32), p.regularization, confidence)

        key = ("als", p.half_life_days, p.factors, p.iterations, p.regularization, p.alpha, p.seed)
        return self._scores(key, made)

    def _ease(self, p: Parameters) -> FloatArray:
        key = ("ease", p.half_life_days, p.ease_regularization, p.ease_products)
        fewer = replace(p, ease_products=min(p.ease_products, _MOST_EASE_PRODUCTS))
        return self._scores(key, lambda strengths: ease.train(strengths, self.fold.products, fewer))

    def _category(self, p: Parameters) -> FloatArray:
        return self._scores(("category", p.half_life_days), lambda _: CategoryModel(self.fold.products))

    def _scores(self, key: tuple, fit: Callable[[csr_matrix], Model]) -> FloatArray:
        kind, half_life_days, *_ = key
        kept = self.kept.setdefault(kind, OrderedDict())
        if key not in kept:
            strengths = self.fold.aged(half_life_days)
            its = strengths[self.fold.judged]
            scores = fit(strengths).scores(its)
            kept[key] = scores / np.float32(height(scores.copy(), its))
            if len(kept) > _KEPT:
                kept.popitem(last=False)
        kept.move_to_end(key)
        return kept[key]


def search(folds: Sequence[Fold], start: Parameters, trials: int, k: int) -> Found:
    """Look for the parameters of `blend` that rank best what folds hide.

    Args:
        folds: of which there may be none.
        start: where to begin; those that are not looked for stay.
        trials: how many of ALS's settings are drawn.
        k: length of the lists.
    """
    parts = [_Parts(fold) for fold in folds]
    report: list[Trial] = []

    # Some are tried again after others; what they come to is the same.
    @cache
    def judged(number: int, parameters: Parameters) -> FloatArray:
        return parts[number].ndcg(parameters, k)

    best = start
    its = [judged(number, start) for number in range(len(parts))]
    shoppers = sum(map(len, its))
    report.append(Trial({}, _mean(its), True))
    if shoppers < _LEAST_SHOPPERS:
        return Found(start, tuple(report), shoppers)
    has_categories = any((f.products.categories >= 0).any() for f in folds)

    def try_each(candidates: Iterator[dict[str, Any]]) -> None:
        nonlocal best, its
        for changes in candidates:
            tried = replace(best, **changes)
            if tried == best:
                continue
            found: list[FloatArray] = []
            # What one cut speaks against clearly is not judged on the next.
            while len(found) < len(parts) and not (found and _gain(found, its) < -CLEAR_LOSS):
                found.append(judged(len(found), tried))
            is_taken = len(found) == len(parts) and _gain(found, its) > LEAST_GAIN
            if is_taken:
                best, its = tried, found
            report.append(Trial(changes, _mean(found), is_taken))

    try_each(_candidates(start, trials, has_categories=has_categories))
    try_each(_finer_candidates(best))
    return Found(best, tuple(report), shoppers)


def _candidates(start: Parameters, trials: int, *, has_categories: bool) -> Iterator[dict[str, Any]]:
    """Yield groups of changes, of which each is tried upon the best so far."""
    for days in _HALF_LIVES:
        yield {"half_life_days": days}
    # Before what is trained anew: a trend that misleads would hide what else is better.
    for exponent in _TREND_EXPONENTS:
        yield {"trend_exponent": exponent}
    for penalty in _EASE_REGULARIZATIONS:
        yield {"ease_regularization": penalty}
    random = np.random.default_rng(start.seed)
    for _ in range(trials):
        yield {
            "factors": max(1, int(start.factors * random.choice([0.25, 0.5, 1.0]))),
            "regularization": float(start.regularization * random.choice([0.1, 0.3, 1.0, 3.0])),
            "alpha": float(start.alpha * random.choice([0.3, 1.0, 3.0])),
        }
    for share in _EASE_SHARES:
        yield {"ease_share": share}
    for _ in range(2):
        if has_categories:
            for weight in _CATEGORY_WEIGHTS:
                yield {"category_weight": weight}
        for exponent in _TREND_EXPONENTS:
            yield {"trend_exponent": exponent}
        for share in _EASE_SHARES:
            yield {"ease_share": share}


def _finer_candidates(best: Parameters) -> Iterator[dict[str, Any]]:
    """Yield the same, around the best of those."""
    for times in (0.5, 2.0):
        yield {"ease_regularization": best.ease_regularization * times}
    for share in _EASE_SHARES:
        yield {"ease_share": share}


def _mean(of_folds: Sequence[FloatArray]) -> float:
    ndcg = np.concatenate([*of_folds, np.empty(0)])
    return float(ndcg.mean()) if len(ndcg) else 0.0


def _gain(of_folds: Sequence[FloatArray], than: Sequence[FloatArray]) -> float:
    """Return the mean difference to what others come to on the same folds, in standard errors; 0 if there is none."""
    difference = np.concatenate(of_folds) - np.concatenate(than[: len(of_folds)])
    mean = float(difference.mean()) if len(difference) > 1 else 0.0
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if mean else 1.0
    return mean / error if error else math.copysign(math.inf, mean)


def fallback_exponent(folds: Sequence[Fold], k: int) -> tuple[float, dict[float, float]]:
    """Choose by new shoppers what the trend is to do to the list that unknown shoppers are shown.

    Returns:
        The exponent of the trend by which popularity is multiplied, and the mean nDCG by exponent.
    """
    if not folds:
        return _FALLBACK_EXPONENTS[0], {}
    found = {}
    for exponent in _FALLBACK_EXPONENTS:
        lists = [top_n_of_rows((f.products.scores * f.products.trend**exponent)[None, :], k) for f in folds]
        found[exponent] = np.concatenate(
            [
                rank_metrics(*hits_of(np.repeat(its.products, f.of_new.shape[0], 0), f.of_new), k)["ndcg"]
                for its, f in zip(lists, folds, strict=True)
            ]
        )
    chosen = _FALLBACK_EXPONENTS[0]
    for exponent in _FALLBACK_EXPONENTS[1:]:
        if len(found[chosen]) >= _LEAST_SHOPPERS and _gain([found[exponent]], [found[chosen]]) > LEAST_GAIN:
            chosen = exponent
    return chosen, {exponent: _mean([ndcg]) for exponent, ndcg in found.items()}


def folds_by_time(
    engine: Engine,
    days: DataFrame,
    events: DataFrame,
    product_days: DataFrame,
    parameters: Parameters,
    weights: EventWeights,
    test_fraction: float,
) -> list[Fold]:
    """Cut the past several times, each time what the cut before has left.

    Args:
        engine, days, events, test_fraction: as for `split_by_time`.
        product_days: PRODUCT_PERFORMANCE rows of these days, for the products' categories.
        parameters: as for `Fold.of`.
        weights: what events are worth.

    Returns:
        As many as there are events for; none where a cut leaves nothing to train on.
    """
    folds = []
    with ExitStack() as held:
        for _ in range(CUTS):
            try:
                past, hidden = split_by_time(engine, days, events, test_fraction)
            except NotEnoughInteractions:
                break
            past, hidden = engine.persist(past), engine.persist(hidden)
            for part in (past, hidden):
                held.callback(engine.release, part)
            categories = latest_categories(product_days, last_day(engine, past))
            train, test = (interactions(part, weights) for part in (past, hidden))
            folds.append(Fold.of(engine, train, test, parameters, categories))
            days = past
    return folds


def remembered(
    searches: Iterable[Mapping[str, Any]],
    start: Parameters,
    last_day: date | None,
    rows: int,
    every_days: int,
) -> dict[str, Any] | None:
    """Return the search whose findings still hold; None where another is due.

    One is due when `every_days` have passed, when there is twice as much to learn from, or half, and when the settings
    that it starts from have changed.

    Args:
        searches: MODEL_PARAMETERS rows.
        start: the parameters of the settings.
        last_day: the newest day with an interaction.
        rows: how many rows of `interaction_days` there are on TRAINING_DAYS.
        every_days: days between two searches.
    """
    if last_day is None:
        return None
    holding = [
        dict(row)
        for row in searches
        if row["started_from"] == start.as_json
        and 0 <= (last_day - row["last_day"]).days < every_days
        and row["interactions"] / 2 < rows < row["interactions"] * 2
    ]
    return max(holding, key=lambda row: (row["last_day"], row["interactions"]), default=None)


def search_row(
    folds: Sequence[Fold], start: Parameters, trials: int, k: int, last_day: date, rows: int
) -> dict[str, Any]:
    """Search, and return what was found as a MODEL_PARAMETERS row; arguments as for `search` and `remembered`."""
    found = search(folds, start, trials, k)
    exponent, _ = fallback_exponent(folds, k)
    return {
        "last_day": last_day,
        "started_from": start.as_json,
        "parameters": found.parameters.as_json,
        "fallback_exponent": exponent,
        "interactions": rows,
        "users": found.shoppers,
        "ndcg_before": found.trials[0].ndcg,
        "ndcg": max(trial.ndcg for trial in found.trials if trial.is_taken),
        "trials": json.dumps([trial._asdict() for trial in found.trials]),
    }
