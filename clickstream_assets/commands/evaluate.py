"""`clickstream evaluate`: which algorithm finds best what shoppers turned to later, on a file of events."""

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.engine import DataFrame, Engine


SplitKind: TypeAlias = Literal["temporal", "random"]
"""The part of the interactions that is hidden: the latest, or some of each product's."""


def evaluate(
    events: Annotated[
        Path,
        typer.Option(help="Any file that `clickstream replay` reads, or ratings (MovieLens); also .gz."),
    ],
    split: Annotated[
        SplitKind,
        typer.Option(
            help="temporal: train on the past; random: hide a share of each product's interactions."
        ),
    ] = "temporal",
    test_fraction: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Share to hide (default: EVALUATION_TEST_FRACTION)."),
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="Length of the ranked lists (default: EVALUATION_K).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of training and the random split (default: MODEL_SEED).")
    ] = None,
) -> None:
    """Train every algorithm on a part of the events and rank all products for what was hidden.

    Prints one JSON object: the figures of each algorithm, which one would be published, and why. Computed in
    this process, on DuckDB.
    """
    given = {"evaluation_test_fraction": test_fraction, "evaluation_k": k, "model_seed": seed}
    settings = load_settings().model_copy(update={k: v for k, v in given.items() if v is not None})
    typer.echo(json.dumps(_report(settings, events, split)))


def _report(settings: Settings, path: Path, split: SplitKind) -> dict[str, Any]:
    # Imported here, so that `clickstream --help` need not wait for numpy and DuckDB.
    from clickstream_assets.analytics.identity import IdentityRules
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.ingest.event_frames import load_events, shoppers_of
    from clickstream_assets.ingest.fields import ValidationRules
    from clickstream_assets.recommender.evaluation import METRICS, choose, evaluate
    from clickstream_assets.recommender.parameters import Parameters
    from clickstream_assets.recommender.popularity import latest_categories

    engine = DuckDBEngine(settings)
    loaded = load_events(engine, path, ValidationRules.of(settings))
    if loaded.left_out:
        details = ", ".join(f"{count:,} {reason}" for reason, count in loaded.left_out.items())
        typer.echo(f"Left out of {path}: {details}", err=True)
    events = engine.persist(shoppers_of(loaded.events, IdentityRules.of(settings)))
    train, test, until = _split(engine, events, settings, split)
    product_days = events.withColumnRenamed("event_date", "report_date")
    evaluations = evaluate(
        engine,
        train,
        test,
        Parameters.of(settings),
        settings.evaluation_k,
        categories=latest_categories(product_days, until),
    )
    choice = choose(evaluations)
    size = _size(engine, train)
    return {
        "split": split,
        "test_fraction": settings.evaluation_test_fraction,
        "k": settings.evaluation_k,
        "seed": settings.model_seed,
        "train_events": size["events"],
        "test_events": _size(engine, test)["events"],
        "users": size["users"],
        "items": size["items"],
        "evaluated_users": evaluations[0].users,
        "algorithms": {
            evaluation.algorithm: {
                **{metric: evaluation.mean(metric) for metric in METRICS},
                "coverage": evaluation.coverage,
                "seconds": round(evaluation.seconds, 3),
            }
            for evaluation in evaluations
        },
        "chosen": choice.algorithm,
        "reason": choice.reason,
    }


def _split(
    engine: "Engine", events: "DataFrame", settings: Settings, kind: SplitKind
) -> tuple["DataFrame", "DataFrame", date | None]:
    """Return what to train on, what to judge by, and the last day that training may know of, if any."""
    from clickstream_assets.recommender.interactions import (
        consent_days,
        interaction_days,
        interactions,
        last_day,
        profiled,
        split_at_random,
        split_by_time,
    )
    from clickstream_assets.recommender.parameters import EventWeights

    fraction = settings.evaluation_test_fraction
    weights, consents, until = EventWeights.of(settings), consent_days(events), None
    days = engine.persist(profiled(interaction_days(events), consents))
    if kind == "random":
        train, test = split_at_random(interactions(days, weights), fraction, settings.model_seed)
    else:
        past, future = split_by_time(engine, days, profiled(events, consents), fraction)
        until = last_day(engine, past)
        train, test = (interactions(part, weights) for part in (past, future))
    return engine.persist(train), engine.persist(test), until


def _size(engine: "Engine", interactions: "DataFrame") -> dict[str, int]:
    """Count the events, users and items behind some interactions."""
    from clickstream_assets.engine import functions_of

    functions, _ = functions_of(interactions)
    column = functions.col
    counts = interactions.agg(
        functions.coalesce(
            functions.sum(column("views") + column("add_to_carts") + column("purchases")), functions.lit(0)
        )
        .cast("long")
        .alias("events"),
        functions.countDistinct("user_id").cast("long").alias("users"),
        functions.countDistinct("product_id").cast("long").alias("items"),
    )
    return engine.to_arrow(counts).to_pylist()[0]
