"""Lists for every shopper, beside the library underneath: seconds of both, in one run.

    python -m benchmarks.lists --interactions 1000000 --shoppers 50000 --products 20000

Interactions are drawn at random, popular products more often. `implicit` is timed with its own `recommend` for all
shoppers, what they have met left out, as many products each. This project's lists are rows of text, with scores and
reasons. Both are of the same factors; the algorithms that are not ALS are trained too. Processor seconds are those of
all processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.measure import say
from clickstream_assets.catalogue import INTERACTIONS
from clickstream_assets.engine import DataFrame, DuckDBEngine
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.ranking import Model
from clickstream_assets.recommender.selection import recommend
from clickstream_assets.settings import load_settings


def random_interactions(interactions: int, shoppers: int, products: int, seed: int = 1) -> pa.Table:
    """Draw INTERACTIONS rows: pairs of a shopper and a product, each once, so that a few less than asked for remain."""
    random = np.random.default_rng(seed)
    who = random.integers(shoppers, size=interactions)
    # The n-th product is met 1 / sqrt(n) as often as the first.
    what = (products * random.random(interactions) ** 2).astype(np.int64)
    pairs = np.unique(who * products + what)
    who, what = np.divmod(pairs, products)
    when = pa.scalar(1_700_000_000_000_000, pa.int64()).cast(INTERACTIONS.by_name["last_time"].type)
    size = len(pairs)
    known: dict[str, Any] = {
        "user_id": pa.array([f"u{n}" for n in who.tolist()]),
        "product_id": pa.array([f"p{n}" for n in what.tolist()]),
        "strength": pa.array(random.choice([1.0, 1.585, 5.0, 11.0], size, p=[0.6, 0.2, 0.1, 0.1])),
        "views": pa.repeat(1, size),
        "first_time": pa.repeat(when, size),
        "last_time": pa.repeat(when, size),
    }
    for name in ("add_to_carts", "purchases", "purchase_days"):
        known[name] = pa.repeat(0, size)
    columns = [known.get(field.name, pa.nulls(size)).cast(field.type) for field in INTERACTIONS.arrow]
    return pa.Table.from_arrays(columns, schema=INTERACTIONS.arrow)


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Call a function; return its result, and the seconds and processor seconds that it took."""
    start, before = time.perf_counter(), _processor_seconds()
    result = function()
    figures = {"seconds": time.perf_counter() - start, "processor_seconds": _processor_seconds() - before}
    return result, {name: round(value, 2) for name, value in figures.items()}


def _processor_seconds() -> float:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _lists(engine: DuckDBEngine, model: Model, rows: DataFrame, n: int) -> pa.Table:
    return engine.to_arrow(recommend(engine, model, rows, n, "v1"))


def measure(interactions: int, shoppers: int, products: int, n: int) -> dict[str, Any]:
    """Train on random interactions and make all lists, by the library and by this project."""
    from implicit.als import AlternatingLeastSquares

    settings = load_settings()
    engine = DuckDBEngine(settings)
    rows: DataFrame = engine.from_arrow(random_interactions(interactions, shoppers, products))
    parameters = dataclasses.replace(Parameters.of(settings), iterations=3)
    data = TrainingSet.of(engine, rows, parameters)
    strengths = data.strengths
    figures: dict[str, Any] = {"interactions": strengths.nnz, "shoppers": strengths.shape[0], "n": n}
    library = AlternatingLeastSquares(factors=parameters.factors, iterations=3, random_state=1)
    library.fit(strengths, show_progress=False)
    _, figures["implicit"] = timed(
        lambda: library.recommend(
            np.arange(strengths.shape[0]), strengths, N=n, filter_already_liked_items=True
        )
    )
    say(f"implicit: {figures['implicit']}")
    for name in ("als", "blend"):
        model, training = timed(partial(fit, name, data))
        lists, making = timed(partial(_lists, engine, model, rows, n))
        ratios = {f"ratio_of_{unit}": round(making[unit] / figures["implicit"][unit], 2) for unit in making}
        figures[name] = {"training": training, "lists": making, "rows": lists.num_rows, **ratios}
        say(f"{name}: {figures[name]}")
    engine.end_processes()
    return figures


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--shoppers", type=int, default=50_000)
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--n", type=int, default=20)
    given = parser.parse_args()
    print(json.dumps(measure(given.interactions, given.shoppers, given.products, given.n)))


if __name__ == "__main__":
    main()
