"""Accuracy of foretold purchases, on two public data sets; prints one JSON object.

    python -m benchmarks.predictions --uci FILE --rees46 FILE

Persons: at every seventh day of August and September, models that were fitted to days whose outcomes were known then.
Sessions: each person's are judged by a model that was fitted to the other four fifths of the persons, at each event
before the first purchase. `shuffled` are the same with outcomes that belong to somebody else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import USER_SEGMENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.predictions import persons
from clickstream_assets.predictions.fitting import FloatArray, probabilities
from clickstream_assets.predictions.judging import figures
from clickstream_assets.predictions.session_training import (
    Session,
    fit_sessions,
    judged_sessions,
    sessions_of,
)
from clickstream_assets.settings import load_settings

DATA = Path(__file__).parents[2] / "shared" / "data"
UCI = DATA / "uci_online_retail_20101201-20110930.csv.gz"
REES46 = DATA / "rees46_multicategory_20191001_train.csv.gz"
HELD_OUT = 5
SEED = 42
SHUFFLES = 8
GAP = timedelta(minutes=30)

_DAYS = """
    SELECT
        InvoiceDate::DATE AS report_date,
        regexp_replace(CustomerID, '[.]0$', '') AS user_id,
        CASE WHEN bool_or(Quantity::BIGINT > 0) THEN 'buyer' ELSE 'window_shopper' END AS segment,
        count(*) AS events,
        0::BIGINT AS views,
        0::BIGINT AS add_to_carts,
        count(*) FILTER (Quantity::BIGINT > 0) AS purchases,
        coalesce(sum(Quantity::BIGINT * UnitPrice::DECIMAL(18, 4)) FILTER (Quantity::BIGINT > 0), 0)::DECIMAL(28, 4)
            AS revenue
    FROM (
        SELECT DISTINCT * FROM read_csv($file, header = true, all_varchar = true, delim = ',', quote = '"')
    )
    WHERE CustomerID <> '' AND Quantity::BIGINT <> 0 AND UnitPrice::DECIMAL(18, 4) > 0
    GROUP BY ALL
"""
_EVENTS = """
    SELECT DISTINCT ON (event_time, event_type, product_id, user_id, user_session)
        user_id,
        user_session,
        replace(event_time, ' UTC', '+00')::TIMESTAMPTZ AS event_time,
        CASE event_type WHEN 'cart' THEN 'add_to_cart' ELSE event_type END AS event_type,
        product_id,
        category_code AS product_category,
        price::DECIMAL(18, 4) AS price
    FROM read_csv($file, header = true, all_varchar = true, delim = ',', quote = '"')
    ORDER BY user_id, {session} event_time, event_type
"""


def judge_persons(file: Path, first_judged: date, last_judged: date) -> dict[str, Any]:
    """Judge the models of persons at every seventh day from one to another.

    Args:
        file: order lines of UCI's Online Retail.
        first_judged: the first day by the end of which persons are judged.
        last_judged: the last one, for the shorter horizon too.
    """
    engine = DuckDBEngine(load_settings())
    rows = duckdb.connect().sql(_DAYS, params={"file": str(file)}).to_arrow_table().cast(USER_SEGMENTS.arrow)
    days = engine.from_arrow(rows)
    first, last = pc.min(rows["report_date"]).as_py(), pc.max(rows["report_date"]).as_py()
    weeks = (last_judged - first).days // 7 + 1
    every = [last_judged - timedelta(days=7 * week) for week in range(weeks)]
    as_of = engine.from_arrow(pa.table({"as_of": pa.array(every, pa.date32())}))
    measured = engine.to_arrow(persons.measures(days, as_of))
    measured = measured.sort_by([("as_of", "ascending"), ("user_id", "ascending")])
    found = {}
    for horizon in persons.HORIZONS:
        judged = [d for d in every if d >= first_judged and d + timedelta(days=horizon) <= last]
        for name, its in (("", measured), ("_shuffled", _shuffled(measured, horizon))):
            pairs = [_judge_day(its, first, day, horizon) for day in sorted(judged)]
            outcomes, by_model = (np.concatenate(part) for part in zip(*pairs, strict=True))
            found[f"purchase_in_{horizon}_days{name}"] = {
                **figures(outcomes, by_model)._asdict(),
                "judged_days": [str(min(judged)), str(max(judged))],
            }
    return found


def _judge_day(measured: pa.Table, first: date, day: date, horizon: int) -> tuple[FloatArray, FloatArray]:
    cuts = pa.array(persons.past_days(first, day, horizon), pa.date32())
    model = persons.fit_persons(measured.filter(pc.is_in(measured["as_of"], cuts)), horizon)
    rows = measured.filter(pc.equal(measured["as_of"], pa.scalar(day)))
    outcomes = rows[f"bought_in_{horizon}"].to_numpy().astype(float)
    return outcomes, probabilities(model, persons.features_of(rows))


def _shuffled(measured: pa.Table, horizon: int) -> pa.Table:
    """Give each person of a day the outcome of another person of that day."""
    name = f"bought_in_{horizon}"
    random = np.random.default_rng(SEED)
    days, outcomes = measured["as_of"].to_numpy(), measured[name].to_numpy().copy()
    for day in np.unique(days):
        outcomes[days == day] = random.permutation(outcomes[days == day])
    return measured.set_column(measured.column_names.index(name), name, pa.array(outcomes))


def judge_sessions(file: Path) -> dict[str, Any]:
    """Judge the model of sessions, each person's by what the others did.

    Args:
        file: events of REES46.
    """
    found = {}
    for name, session in (("by_gap", ""), ("of_sender", "user_session,")):
        query = _EVENTS.format(session=session)
        events = duckdb.connect().sql(query, params={"file": str(file)}).to_arrow_table()
        if session:
            whose = dict(zip(events["user_session"].to_pylist(), events["user_id"].to_pylist(), strict=True))
            named = events.set_column(0, "user_id", events["user_session"])
            sessions = [
                replace(its, person=whose[its.person]) for its in sessions_of(named, timedelta(days=1))
            ]
        else:
            sessions = sessions_of(events, GAP)
        found[f"purchase_in_session_{name}"] = _held_out(sessions)
        # Of 150 buying sessions, one order alone is off by .03 now and then.
        random = np.random.default_rng(SEED)
        outcomes = [its.bought for its in sessions]
        orders = [random.permutation(outcomes).tolist() for _ in range(SHUFFLES)]
        aucs = [
            _held_out([replace(its, bought=its_own) for its, its_own in zip(sessions, order, strict=True)])[
                "auc"
            ]
            for order in orders
        ]
        found[f"purchase_in_session_{name}_shuffled"] = {"auc": float(np.mean(aucs)), "of_each": aucs}
    return found


def _held_out(sessions: Iterable[Session]) -> dict[str, Any]:
    folds: list[list[Session]] = [[] for _ in range(HELD_OUT)]
    for session in sessions:
        folds[int(md5(f"held out|{session.person}".encode()).hexdigest()[:8], 16) % HELD_OUT].append(session)
    pairs = []
    for held_out in range(HELD_OUT):
        others = [its for fold, part in enumerate(folds) if fold != held_out for its in part]
        pairs.append(judged_sessions(fit_sessions(others), folds[held_out]))
    outcomes, by_model = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return {
        **figures(outcomes, by_model)._asdict(),
        "sessions": sum(map(len, folds)),
        "auc_of_parts": [round(figures(*pair).auc, 4) for pair in pairs],
    }


def main(argv: list[str] | None = None) -> None:
    """Judge both, and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uci", type=Path, default=UCI, help="order lines of UCI's Online Retail")
    parser.add_argument("--rees46", type=Path, default=REES46, help="events of REES46")
    parser.add_argument("--from", dest="first", type=date.fromisoformat, default=date(2011, 8, 1))
    parser.add_argument("--to", dest="last", type=date.fromisoformat, default=date(2011, 9, 19))
    given = parser.parse_args(argv)
    found: Mapping[str, Any] = judge_persons(given.uci, given.first, given.last) | judge_sessions(
        given.rees46
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
