"""The probability that a person buys within some days, from what each of their days sums up to.

Features are made of `user_segments`: a row per person and day on which they were there. They look back LOOK_BACK_DAYS
at most, and never at a day after the one that they are of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import PERSON_PREDICTIONS
from clickstream_assets.engine import DataFrame, Engine, as_view, functions_of, number_of_hex
from clickstream_assets.predictions.additive import AdditiveModel
from clickstream_assets.predictions.fitting import FloatArray, fit, probabilities, recalibrated
from clickstream_assets.predictions.judging import Verdict, verdict
from clickstream_assets.predictions.sessions import reasons_of

HORIZONS = (7, 28)
"""Within how many days a purchase is foretold."""
LOOK_BACK_DAYS = 365
"""Days before a person is judged that count."""
SEEN_DAYS = 28
"""A person is judged who bought within LOOK_BACK_DAYS or was there within so many."""
CUT_EVERY_DAYS = 7
MOST_CUTS = 40
"""Past days that a model learns from: every seventh, up to so many."""
LEAST_HISTORY_DAYS = 28
"""Days that there must have been before the first of them."""
JUDGED_CUTS = 4
"""Of them the last so many are those that a model is judged on before it is fitted to all."""
HALF_LIFE_DAYS = 28
"""Examples so much older count half: how much shoppers buy changes with the season."""
RECENT_DAYS = 15
"""The mean probability is that of the examples whose outcome has been known for fewer days."""
MOST_EXAMPLES = 200_000
POINTS = 6
_SAMPLES = 1_000_000
_MONTH = 28
_QUARTER = 91
# Longer ago than any purchase that is looked at.
_NEVER = float(np.log1p(2 * LOOK_BACK_DAYS))

FEATURES = (
    *("last_purchase", "first_purchase", "purchases", "purchases_month", "purchases_quarter"),
    *("order_value", "order_lines", "pace", "overdue", "last_visit", "visits_month", "last_cart"),
)
RULE = ("last_purchase",)
"""The feature of the rule of recency, which a model has to beat."""
_WORDS = {
    "last_purchase": ("bought not long ago", "has not bought for long"),
    "first_purchase": ("known for a time after which many buy", "known for a time after which few buy"),
    "purchases": ("bought on many days", "bought on few days"),
    "purchases_month": ("bought often in the last four weeks", "bought seldom in the last four weeks"),
    "purchases_quarter": ("bought often in the last three months", "bought seldom in the last three months"),
    "order_value": ("spends much on a day", "spends little on a day"),
    "order_lines": ("buys many products at once", "buys few products at once"),
    "pace": ("buys at short intervals", "buys at long intervals, or bought on one day only"),
    "overdue": ("their usual time between purchases is about over", "not about to buy by their usual rhythm"),
    "last_visit": ("was there lately", "has not been there for long"),
    "visits_month": ("was there often in the last four weeks", "was there seldom in the last four weeks"),
    "last_cart": ("filled a cart lately", "filled no cart lately"),
}
"""In words, why a feature speaks for a purchase, and why against."""
_MEASURES = pa.schema(
    [
        ("as_of", pa.date32()),
        ("user_id", pa.string()),
        *((name, pa.int64()) for name in ("bought_ago", "first_bought_ago", "buying_days")),
        *((name, pa.int64()) for name in ("buying_days_month", "buying_days_quarter", "lines")),
        ("revenue", pa.float64()),
        *((name, pa.int64()) for name in ("seen_ago", "days_month", "carted_ago")),
        *((f"bought_in_{days}", pa.int64()) for days in HORIZONS),
    ]
)


def measures(days: DataFrame, as_of: DataFrame) -> DataFrame:
    """Sum up what each person had done by the end of some days, and whether they bought in the days after.

    Args:
        days: USER_SEGMENTS rows, of LOOK_BACK_DAYS before the first of `as_of` to the greatest of HORIZONS after.
        as_of: `as_of`, the days by the end of which persons are judged.

    Returns:
        as_of and user_id, of who bought within LOOK_BACK_DAYS or was there within SEEN_DAYS: days since the last and
        the first purchase and the last addition to a cart, null without one; days on which they bought, of all, of a
        month and of a quarter; lines and revenue of these; days since they were last there, and on how many days of
        the month; and for each of HORIZONS whether they bought within that, as 0 or 1.
    """
    F, _ = functions_of(days)
    ago = F.datediff("as_of", "report_date")
    around = (ago < LOOK_BACK_DAYS) & (ago >= -max(HORIZONS))
    each = as_view(
        days.join(as_of, on=around, how="inner").select(
            "as_of",
            "user_id",
            ago.cast("long").alias("ago"),
            F.when(F.col("purchases") > 0, ago).cast("long").alias("bought"),
            F.when(F.col("add_to_carts") > 0, ago).cast("long").alias("carted"),
            "purchases",
            F.col("revenue").alias("paid"),
        )
    )
    ago, bought, carted = F.col("ago"), F.col("bought"), F.col("carted")

    def days_where(condition: Any) -> Any:
        return F.sum(F.when(condition, F.lit(1)).otherwise(F.lit(0))).cast("long")

    def past(value: Any) -> Any:
        return F.when(ago >= 0, value)

    by_person = as_view(
        each.groupBy("as_of", "user_id").agg(
            F.min(past(bought)).alias("bought_ago"),
            F.max(past(bought)).alias("first_bought_ago"),
            days_where(bought >= 0).alias("buying_days"),
            days_where(bought.between(0, _MONTH - 1)).alias("buying_days_month"),
            days_where(bought.between(0, _QUARTER - 1)).alias("buying_days_quarter"),
            F.coalesce(F.sum(past(F.col("purchases"))), F.lit(0)).cast("long").alias("lines"),
            F.coalesce(F.sum(past(F.col("paid"))).cast("double"), F.lit(0.0)).alias("revenue"),
            F.min(past(ago)).alias("seen_ago"),
            days_where(ago.between(0, _MONTH - 1)).alias("days_month"),
            F.min(past(carted)).alias("carted_ago"),
            *(
                F.max(F.when(bought.between(-horizon, -1), F.lit(1)).otherwise(F.lit(0)))
                .cast("long")
                .alias(f"bought_in_{horizon}")
                for horizon in HORIZONS
            ),
        )
    )
    is_judged = F.col("bought_ago").isNotNull() | (F.col("seen_ago") < SEEN_DAYS)
    return by_person.where(is_judged).select(*_MEASURES.names)


def features_of(rows: pa.Table | pa.RecordBatch) -> FloatArray:
    """Return FEATURES of rows of `measures`, a column each.

    Times are log(1 + days), and counts log(1 + count), to six digits. `pace` is that of days of purchase a month,
    between the first and the day itself; `overdue` compares the time since the last purchase with the mean time between
    purchases, or with a month where there was one.
    """

    def column(name: str) -> FloatArray:
        return pc.fill_null(rows[name], -1).to_numpy(zero_copy_only=False).astype(float)

    bought, first, carted = (column(name) for name in ("bought_ago", "first_bought_ago", "carted_ago"))
    days = column("buying_days")
    has_bought, again = days > 0, days > 1
    per_day = np.maximum(days, 1)
    gap = np.where(again, (first - bought) / np.maximum(days - 1, 1), _MONTH)
    columns = {
        "last_purchase": np.where(has_bought, np.log1p(np.maximum(bought, 0)), _NEVER),
        "first_purchase": np.where(has_bought, np.log1p(np.maximum(first, 0)), _NEVER),
        "purchases": np.log1p(days),
        "purchases_month": np.log1p(column("buying_days_month")),
        "purchases_quarter": np.log1p(column("buying_days_quarter")),
        "order_value": np.log1p(np.maximum(column("revenue"), 0) / per_day),
        "order_lines": np.log1p(column("lines") / per_day),
        "pace": np.log1p(_MONTH * np.maximum(days - 1, 0) / np.maximum(first, 7)),
        "overdue": np.where(has_bought, np.log1p(np.maximum(bought, 0) / np.maximum(gap, 1)), _NEVER),
        "last_visit": np.log1p(column("seen_ago")),
        "visits_month": np.log1p(column("days_month")),
        "last_cart": np.where(carted >= 0, np.log1p(np.maximum(carted, 0)), _NEVER),
    }
    # Equal values that were computed in other ways are equal again, and give a curve one point.
    return np.stack([columns[name] for name in FEATURES], axis=1).round(6)


def past_days(first: date, last: date, horizon: int) -> list[date]:
    """Return the past days that a model learns from: those whose outcome is known, every seventh, in order.

    Args:
        first: the first day of the shop's that is there.
        last: the last day, which is over, or nearly.
        horizon: days in which persons may buy.
    """
    newest = last - timedelta(days=horizon)
    days = (newest - timedelta(days=CUT_EVERY_DAYS * back) for back in range(MOST_CUTS))
    return sorted(day for day in days if (day - first).days >= LEAST_HISTORY_DAYS)


def sampled(days: DataFrame, cuts: int, engine: Engine, seed: int, most: int = MOST_EXAMPLES) -> DataFrame:
    """Keep the days of all persons, or of as many of them as give `most` examples, about.

    Args:
        days: USER_SEGMENTS rows; their persons are counted first.
        cuts: past days that each person can be an example at.
        engine: where they are.
        seed: decides who is in the sample.
        most: see above.
    """
    F, _ = functions_of(days)
    (counted,) = engine.to_arrow(days.agg(F.countDistinct("user_id").cast("long").alias("n"))).to_pylist()
    if counted["n"] * cuts <= most:
        return days
    digits = F.substring(F.md5(F.concat(F.lit(f"{seed}|"), F.col("user_id"))), 1, 12)
    share = int(_SAMPLES * most / (counted["n"] * cuts))
    return days.where(number_of_hex(F, digits) % F.lit(_SAMPLES) < F.lit(share))


def examples(
    engine: Engine,
    days: DataFrame,
    first: date,
    last: date,
    horizon: int,
    seed: int,
    most: int = MOST_EXAMPLES,
) -> pa.Table:
    """Return rows of `measures` at each of `past_days`, of a sample of persons.

    Args:
        engine: where the days are.
        days: USER_SEGMENTS rows.
        first: the first day of the shop's that is there.
        last: the last day that is over.
        horizon: days in which persons may buy.
        seed: decides who is in the sample.
        most: examples, about.
    """
    cuts = past_days(first, last, horizon)
    if not cuts:
        return _MEASURES.empty_table()
    as_of = engine.from_arrow(pa.table({"as_of": pa.array(cuts, pa.date32())}))
    rows = engine.to_arrow(measures(sampled(days, len(cuts), engine, seed, most), as_of))
    # Whatever order the engine has them in, the fit adds up the same numbers in the same order.
    return rows.cast(_MEASURES).sort_by([("as_of", "ascending"), ("user_id", "ascending")])


def fit_persons(rows: pa.Table, horizon: int, rule: bool = False) -> AdditiveModel:
    """Fit a model to examples, the newest of which count most.

    Args:
        rows: rows of `measures` whose outcomes are known; among them such that bought, and others.
        horizon: one of HORIZONS.
        rule: fit the rule of recency instead, which has the feature RULE alone.
    """
    features, outcomes = features_of(rows), _outcomes(rows, horizon)
    if rule:
        features = features * np.isin(FEATURES, RULE)
    days = rows["as_of"].to_numpy().astype("datetime64[D]").astype(int)
    age = days.max() - days
    model = fit(FEATURES, features, outcomes, 0.5 ** (age / HALF_LIFE_DAYS), POINTS)
    recent = age < RECENT_DAYS
    return recalibrated(model, features[recent], outcomes[recent])


def _outcomes(rows: pa.Table, horizon: int) -> FloatArray:
    return rows[f"bought_in_{horizon}"].to_numpy().astype(float)


def train_persons(rows: pa.Table, horizon: int) -> tuple[AdditiveModel | None, Verdict]:
    """Judge a model on the last days that it did not see, and fit it to all.

    What it is fitted to before is over, outcome included, by the first day that it is judged on.

    Args:
        rows: what `examples` returned.
        horizon: one of HORIZONS.

    Returns:
        The model, None where it is not accepted, and the verdict.
    """
    cuts = sorted(set(rows["as_of"].to_pylist()))
    if not cuts:
        return None, Verdict(
            False, f"no day whose next {horizon} days are known, after {LEAST_HISTORY_DAYS} others"
        )
    first_judged = cuts[-JUDGED_CUTS:][0]
    before = rows.filter(pc.less_equal(rows["as_of"], pa.scalar(first_judged - timedelta(days=horizon))))
    after = rows.filter(pc.greater_equal(rows["as_of"], pa.scalar(first_judged)))
    known = _outcomes(before, horizon)
    if not len(known) or not 0 < known.sum() < len(known):
        bought = int(known.sum())
        return None, Verdict(
            False, f"{bought} of {len(known)} earlier examples bought: nothing to learn from"
        )
    features = features_of(after)
    by_model = probabilities(fit_persons(before, horizon), features)
    by_rule = probabilities(fit_persons(before, horizon, rule=True), features * np.isin(FEATURES, RULE))
    by_base_rate = np.full(len(by_model), known.mean())
    persons = after["user_id"].to_pylist()
    found = verdict(_outcomes(after, horizon), by_model, by_base_rate, by_rule, persons)
    return (fit_persons(rows, horizon) if found.accepted else None), found


@dataclass(frozen=True)
class _Scores:
    """What `map_arrow` ships to where the rows are."""

    models: Mapping[int, AdditiveModel]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for rows in batches:
            yield _scored(rows, self.models)


def predictions(
    engine: Engine, days: DataFrame, as_of: date, models: Mapping[int, AdditiveModel]
) -> DataFrame:
    """Give each person of `measures` their probabilities, by the end of a day.

    Args:
        engine: where the days are.
        days: USER_SEGMENTS rows of LOOK_BACK_DAYS up to the day.
        as_of: the day.
        models: the models by their horizons, at least one; where one is missing, so is the probability.

    Returns:
        PERSON_PREDICTIONS rows. The reasons are those of the nearest horizon.
    """
    day = engine.from_arrow(pa.table({"as_of": pa.array([as_of], pa.date32())}))
    return engine.map_arrow(measures(days, day), _Scores(models), PERSON_PREDICTIONS.arrow)


def _scored(rows: pa.RecordBatch, models: Mapping[int, AdditiveModel]) -> pa.RecordBatch:
    features = features_of(rows)
    columns = {"user_id": rows["user_id"]}
    for horizon in HORIZONS:
        # Three digits: of a person who stays away the same from day to day, so that the row is not written again.
        found = probabilities(models[horizon], features).round(3) if horizon in models else [None] * len(rows)
        columns[f"probability_{horizon}_days"] = pa.array(found, pa.float64())
    nearest = models[min(models)]
    reasons = [list(reasons_of(nearest, row, _WORDS)) for row in features.tolist()]
    columns["reasons"] = pa.array(reasons, pa.list_(pa.string()))
    return pa.record_batch(
        [columns[name] for name in PERSON_PREDICTIONS.column_names], schema=PERSON_PREDICTIONS.arrow
    )
