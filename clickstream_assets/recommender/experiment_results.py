"""The results of an experiment by arm: figures with intervals, and the decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from clickstream_assets.analytics.experiment_statistics import (
    LEVEL,
    MISMATCH,
    Interval,
    Sums,
    Verdict,
    judge,
    mean_interval,
    newcombe,
    sizes_p_value,
    welch,
    wilson,
)
from clickstream_assets.catalogue.units import EPOCH
from clickstream_assets.recommender.experiments import Arm, Experiment

Row = Mapping[str, Any]
_FIGURES = {"click_through": "click_through", "conversion": "conversion", "revenue": "revenue_per_unit"}
"""The figure that each metric of an experiment is."""


class Counted(NamedTuple):
    """Counts of an experiment, a row for each arm, or for each arm and day.

    Attributes:
        exposures: `arm`, `exposures`.
        sizes: Rows of `experiments.sizes`.
        outcomes: Rows of `experiments.outcomes`.
        as_of: Time of the newest event; None without any.
    """

    exposures: Iterable[Row]
    sizes: Iterable[Row]
    outcomes: Iterable[Row]
    as_of: datetime | None


class _Totals(NamedTuple):
    judged: int = 0
    clicked: int = 0
    converted: int = 0
    revenue: Decimal = Decimal(0)
    squares: float = 0.0

    def plus(self, row: Row) -> _Totals:
        """Return the totals with a row of outcomes."""
        return _Totals(
            self.judged + row["judged_units"],
            self.clicked + row["clicked_units"],
            self.converted + row["converted_units"],
            self.revenue + row["revenue"],
            self.squares + row["revenue_squares"],
        )

    def sums(self, metric: str) -> Sums:
        """Return the sums of the figure that a metric is."""
        if metric == "revenue":
            return Sums(self.judged, float(self.revenue), self.squares)
        return Sums.of_flags(self.judged, self.clicked if metric == "click_through" else self.converted)


def result_rows(experiment: Experiment, counted: Counted) -> list[dict[str, Any]]:
    """Return EXPERIMENT_RESULTS rows: one of each arm.

    Exposures of arms that are not declared any more count nowhere.
    """
    exposures = {row["arm"]: row["exposures"] for row in counted.exposures}
    sizes = {row["arm"]: row for row in counted.sizes}
    days, looks = _looks(experiment, counted.outcomes)
    units = {arm.name: sizes.get(arm.name, {}).get("units", 0) for arm in experiment.arms}
    sizes_p = sizes_p_value(list(units.values()), [arm.share for arm in experiment.arms])
    control = experiment.control
    base = looks[control.name][-1] if days else _Totals()
    rows = []
    for place, arm in enumerate(experiment.arms, start=1):
        verdict = Verdict() if arm is control else _verdict(experiment, arm, looks)
        is_mismatched = sizes_p is not None and sizes_p < MISMATCH
        decided = None if is_mismatched else verdict.decided_at
        rows.append(
            {
                "experiment": experiment.name,
                "arm": arm.name,
                "place": place,
                "serves": arm.serves,
                "share": arm.share,
                "metric": experiment.metric,
                "window_hours": experiment.window_hours,
                "as_of": counted.as_of,
                "exposures": exposures.get(arm.name, 0),
                "units": units[arm.name],
                "units_of_several_arms": sizes.get(arm.name, {}).get("units_of_several_arms", 0),
                **_figures(looks[arm.name][-1] if days else _Totals(), None if arm is control else base),
                "difference_low": verdict.interval.low if verdict.interval else None,
                "difference_high": verdict.interval.high if verdict.interval else None,
                "p_value": verdict.p_value,
                "decision": _decision(arm is control, is_mismatched, verdict),
                "decided_on": None if decided is None else _date(days[decided]),
                "sizes_p_value": sizes_p,
            }
        )
    return rows


def _date(day: int) -> date:
    return (EPOCH + timedelta(days=day)).date()


def _decision(is_control: bool, is_mismatched: bool, verdict: Verdict) -> str:
    if is_control:
        return "control"
    if is_mismatched:
        return "mismatched"
    if verdict.decided_at is None:
        return "undecided"
    return "better" if verdict.is_better else "worse"


def _looks(experiment: Experiment, outcomes: Iterable[Row]) -> tuple[list[int], dict[str, list[_Totals]]]:
    """Return the days on which windows ended, and the totals of each arm up to each of them."""
    by_arm: dict[str, dict[int, Row]] = {arm.name: {} for arm in experiment.arms}
    for row in outcomes:
        if row["arm"] in by_arm:
            by_arm[row["arm"]][row["day"]] = row
    days = sorted({day for rows in by_arm.values() for day in rows})
    looks: dict[str, list[_Totals]] = {}
    for arm, rows in by_arm.items():
        totals, so_far = _Totals(), []
        for day in days:
            totals = totals.plus(rows[day]) if day in rows else totals
            so_far.append(totals)
        looks[arm] = so_far
    return days, looks


def _verdict(experiment: Experiment, arm: Arm, looks: Mapping[str, list[_Totals]]) -> Verdict:
    control = experiment.control
    shared = sum(each.share for each in experiment.arms)
    expected = (experiment.units * arm.share / shared, experiment.units * control.share / shared)
    pairs = [
        (its.sums(experiment.metric), base.sums(experiment.metric))
        for its, base in zip(looks[arm.name], looks[control.name], strict=True)
    ]
    # Each comparison is allowed its part of the chance of a false alarm (Bonferroni).
    return judge(pairs, expected, (1 - LEVEL) / (len(experiment.arms) - 1))


def _figures(its: _Totals, base: _Totals | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "judged_units": its.judged,
        "clicked_units": its.clicked,
        "converted_units": its.converted,
        "revenue": its.revenue,
    }
    for metric, name in _FIGURES.items():
        sums = its.sums(metric)
        of_base = base.sums(metric) if base else None
        figures[name] = sums.mean if sums.units else None
        figures |= _bounds(name, _interval(metric, sums))
        is_comparable = of_base is not None and min(sums.units, of_base.units) > 0
        figures[f"{name}_difference"] = sums.mean - of_base.mean if of_base and is_comparable else None
        between = _between(metric, sums, of_base) if of_base and is_comparable else None
        figures |= _bounds(f"{name}_difference", between)
    return figures


def _interval(metric: str, sums: Sums) -> Interval | None:
    if metric == "revenue":
        return mean_interval(sums)
    return wilson(int(sums.total), sums.units) if sums.units else None


def _between(metric: str, sums: Sums, base: Sums) -> Interval | None:
    if metric == "revenue":
        return welch(sums, base)
    return newcombe(int(sums.total), sums.units, int(base.total), base.units)


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
