"""`clickstream evaluate`: which algorithm finds best what shoppers turned to later, on a file of events."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from clickstream_assets.errors import ClickstreamError
from clickstream_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from clickstream_assets.engine import DataFrame, Engine
    from clickstream_assets.recommender.evaluation import Evaluation
    from clickstream_assets.recommender.parameters import Parameters
    from clickstream_assets.recommender.search import Fold


SplitKind: TypeAlias = Literal["temporal", "random"]
"""The part of the interactions that is hidden: the latest, or some of each product's."""
TargetName: TypeAlias = Literal["next", "new", "purchases"]


class SplitError(ClickstreamError):
    """The files or the day do not say what to train on and what to judge by; the message says what is missing."""


def evaluate(
    events: Annotated[
        Path | None,
        typer.Option(help="Any file that `clickstream replay` reads, or ratings (MovieLens); also .gz."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Instead of --events: a file to train on, with --test.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="A file to judge by, with --train.")] = None,
    train_until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The last of the shop's days to train on; later ones judge."),
    ] = None,
    target: Annotated[
        TargetName,
        typer.Option(
            help="What is to be found. next: products that are new to known shoppers; new: products of shoppers "
            "without a history; purchases: what known shoppers buy, again or for the first time. All three are "
            "reported; this one decides, and is at the top."
        ),
    ] = "next",
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
    search: Annotated[
        bool,
        typer.Option(help="Look for better parameters than the settings', on a part of what is trained on."),
    ] = True,
) -> None:
    """Train every algorithm on a part of the events and rank all products for what was hidden.

    Prints one JSON object: the figures of each algorithm with their intervals, which one would be published at a first
    look, and why; the share of the hidden pairs of shopper and product that are judged; and which records were left
    out by which rule. Computed in this process, on DuckDB.
    """
    given = {"evaluation_test_fraction": test_fraction, "evaluation_k": k, "model_seed": seed}
    settings = load_settings().model_copy(update={k: v for k, v in given.items() if v is not None})
    if (events is None) == (train is None and test is None) or (train is None) != (test is None):
        raise SplitError("Name one file with --events, or two with --train and --test.")
    if train_until and (train or split == "random"):
        raise SplitError("--train-until cuts --events in time; leave out --train, --test and --split random.")
    until = train_until.date() if train_until else None
    files = [path for path in (events, train, test) if path]
    typer.echo(json.dumps(_report(settings, files, split, until, target, is_searched=search)))


@dataclass(frozen=True)
class _Data:
    """What to train on and to judge by: INTERACTIONS rows, and the categories that are known when training ends.

    `folds` are the cuts inside the training part.
    """

    train: "DataFrame"
    test: "DataFrame"
    categories: "DataFrame"
    folds: "list[Fold]"


def _report(
    settings: Settings,
    files: list[Path],
    split: SplitKind,
    until: date | None,
    target: TargetName,
    *,
    is_searched: bool,
) -> dict[str, Any]:
    # Imported here, so that `clickstream --help` need not wait for numpy and DuckDB.
    from clickstream_assets.engine import DuckDBEngine
    from clickstream_assets.recommender.evaluation import choose, evaluate_targets
    from clickstream_assets.recommender.gate import significance
    from clickstream_assets.recommender.parameters import Parameters
    from clickstream_assets.recommender.search import search

    engine = DuckDBEngine(settings)
    start = parameters = Parameters.of(settings)
    left_out: dict[str, Any] = {}
    parts = [_shoppers(engine, settings, path, left_out) for path in files]
    data = _split(engine, parts, settings, split, until, start, is_searched=is_searched)
    trials: list[dict[str, Any]] = []
    if is_searched:
        found = search(data.folds, start, settings.search_trials, settings.evaluation_k)
        parameters = found.parameters
        trials = [trial._asdict() for trial in found.trials]
    judged = evaluate_targets(
        engine, data.train, data.test, parameters, settings.evaluation_k, data.categories
    )
    choice = choose(judged[target], significance(1))
    size = _size(engine, data.train)
    return {
        "split": split if len(files) == 1 and not until else "files" if len(files) == 2 else "day",
        "test_fraction": settings.evaluation_test_fraction,
        "k": settings.evaluation_k,
        "seed": settings.model_seed,
        "train_events": size["events"],
        "test_events": _size(engine, data.test)["events"],
        "users": size["users"],
        "items": size["items"],
        "target": target,
        **_figures(judged[target], choice.chosen, settings.model_seed),
        "chosen": choice.algorithm,
        "reason": choice.reason,
        "targets": {
            its: _figures(evaluations, choose(evaluations, significance(1)).chosen, settings.model_seed)
            for its, evaluations in judged.items()
        },
        "parameters": parameters.as_dict,
        "search": trials,
        "left_out": left_out,
    }


def _figures(evaluations: "list[Evaluation]", chosen: str, seed: int) -> dict[str, Any]:
    """Return what a target covers and each algorithm's figures for it.

    `behind_chosen` is the interval of how much more the chosen algorithm's nDCG is.
    """
    from clickstream_assets.recommender.evaluation import DECISIVE, METRICS, interval

    first = evaluations[0]
    (best,) = [evaluation for evaluation in evaluations if evaluation.name == chosen]
    values = {evaluation.name: evaluation.by_user[DECISIVE].to_numpy() for evaluation in evaluations}
    return {
        "evaluated_users": first.users,
        "evaluated_pairs": first.pairs,
        "share_of_pairs": first.share,
        "algorithms": {
            evaluation.algorithm: {
                **{metric: evaluation.mean(metric) for metric in METRICS},
                "ndcg_interval": interval(values[evaluation.name], seed),
                "behind_chosen": interval(values[best.name] - values[evaluation.name], seed),
                "coverage": evaluation.coverage,
                "novelty": evaluation.novelty,
                "by_activity": evaluation.by_activity(),
                "seconds": round(evaluation.seconds, 3),
            }
            for evaluation in evaluations
        },
    }


def _shoppers(engine: "Engine", settings: Settings, path: Path, left_out: dict[str, Any]) -> "DataFrame":
    """Read a file's events of shoppers; note in `left_out` what is none of them."""
    from clickstream_assets.analytics.identity import IdentityRules
    from clickstream_assets.ingest.event_frames import load_events, shoppers_of
    from clickstream_assets.ingest.fields import ValidationRules

    loaded = load_events(engine, path, ValidationRules.of(settings))
    left_out[str(path)] = {**loaded.left_out, "by_rule": loaded.rejected_by_rule}
    if loaded.left_out:
        details = ", ".join(f"{count:,} {reason}" for reason, count in loaded.left_out.items())
        rules = ", ".join(
            f"{its['records']:,} by {its['rule']} of {its['field'] or 'the record'}"
            for its in loaded.rejected_by_rule
        )
        typer.echo(f"Left out of {path}: {details}{f' ({rules})' if rules else ''}", err=True)
    return engine.persist(shoppers_of(loaded.events, IdentityRules.of(settings)))


def _split(
    engine: "Engine",
    parts: "list[DataFrame]",
    settings: Settings,
    kind: SplitKind,
    until: date | None,
    start: "Parameters",
    *,
    is_searched: bool,
) -> _Data:
    from clickstream_assets.analytics.consent import consent_days, profiled
    from clickstream_assets.engine import functions_of
    from clickstream_assets.recommender.interactions import (
        interaction_days,
        interactions,
        last_day,
        split_at_random,
        split_by_time,
    )
    from clickstream_assets.recommender.parameters import EventWeights
    from clickstream_assets.recommender.popularity import latest_categories
    from clickstream_assets.recommender.search import Fold, folds_by_time

    fraction, weights = settings.evaluation_test_fraction, EventWeights.of(settings)
    events = parts[0]
    for part in parts[1:]:
        events = events.unionByName(part)
    consents = consent_days(events)
    product_days = events.withColumnRenamed("event_date", "report_date")
    functions, _ = functions_of(events)
    day = functions.col("event_date")
    if kind == "random" and len(parts) == 1:
        everything = interactions(profiled(interaction_days(events), consents), weights)
        train, test = (engine.persist(p) for p in split_at_random(everything, fraction, settings.model_seed))
        categories = latest_categories(product_days)
        folds = []
        if is_searched:
            known, hidden = split_at_random(train, fraction, settings.model_seed)
            folds = [Fold.of(engine, known, hidden, start, categories)]
        return _Data(train, test, categories, folds)
    profiles = [profiled(part, consents) for part in parts]
    if len(parts) == 2:
        past, future = map(interaction_days, profiles)
    elif until:
        past = interaction_days(profiles[0].where(day <= functions.lit(until)))
        future = interaction_days(profiles[0].where(day > functions.lit(until)))
    else:
        days = engine.persist(interaction_days(profiles[0]))
        past, future = split_by_time(engine, days, profiles[0], fraction)
    past = engine.persist(past)
    last = last_day(engine, past)
    if last is None:
        raise SplitError(f"No view, click, addition to the cart or purchase to train on{_until(until)}.")
    train, test = (engine.persist(interactions(part, weights)) for part in (past, future))
    if not test.count():
        raise SplitError(f"No view, click, addition to the cart or purchase to judge by{_until(until)}.")
    folds = []
    if is_searched:
        folds = folds_by_time(engine, past, profiles[0], product_days, start, weights, fraction)
    return _Data(train, test, latest_categories(product_days, last), folds)


def _until(day: date | None) -> str:
    return f" with --train-until {day}" if day else ""


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
