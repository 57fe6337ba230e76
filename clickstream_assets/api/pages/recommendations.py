"""The page of recommendations: of a person beside what they did, and why; the models' record; running experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Response, request

from clickstream_assets.api.pages.parts import Cell, Chart, Filter, Listing, Series
from clickstream_assets.api.pages.products import product_cell, products_named, related
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import reader_of, sheet
from clickstream_assets.api.pages.source import Source

_LISTED = 10
_MODELS = 20
# As many trainings as a chart can show.
_RECORD = 90
_HOW = (
    "Type the id of a person to see what they did beside what is recommended to them, and why; or the id of a product "
    "for what goes with it."
)
_HOW_WITHOUT_PERSONS = (
    "Type the id of a product for what goes with it. What is recommended to a person is shown to keys with the scope "
    "`personal`."
)
_TARGETS = {
    "next": "What is new to known shoppers",
    "new": "What unknown shoppers take",
    "purchases": "What is bought, again or not",
}


def show_recommendations() -> Response:
    """Show what is recommended to a person or beside a product, as the address asks, and the models behind it."""
    source = Source()
    reader = reader_of(source)
    person = request.args.get("person", "").strip()
    product = request.args.get("product", "").strip()
    tables: list[Listing | Sequence[Listing]] = []
    notes: list[str] = []
    if person and source.shows_persons:
        tables += _of_person(source, reader, person)
        notes.append(f"For {person}.")
    if product:
        tables.append(_of_product(source, reader, product))
        notes.append(f"Beside {product}.")
    models = source.get("/api/models", n=_RECORD).rows("models")
    experiments = source.get("/api/experiments")
    return sheet(
        source,
        reader,
        title="Recommendations",
        filters=[
            *([Filter("person", "Person", person, type="text")] if source.shows_persons else []),
            Filter("product", "Product", product, type="text"),
        ],
        note=" ".join(notes) or (_HOW if source.shows_persons else _HOW_WITHOUT_PERSONS),
        # Whoever asks about a person or product looks for the lists.
        charts=[] if tables else [_record(reader, models)],
        tables=[
            *tables,
            _models(reader, models[:_MODELS]),
            _experiments(reader, experiments.rows("experiments")),
        ],
    )


def _record(reader: Reader, models: Sequence[dict[str, Any]]) -> Chart:
    """Return how well each training's lists found what it had not seen, by what was to be found."""
    trained = [
        model for model in models if model["answers"] == "recommendations" and model["trained_at"] is not None
    ]
    trained.sort(key=lambda model: model["trained_at"])
    found = [
        {
            target: next(
                (value for name, value in metric["values"].items() if name.startswith("ndcg@")), None
            )
            for target, metric in _own_metrics(model).items()
        }
        for model in trained
    ]
    return Chart(
        "record",
        "How well the lists found what they had not seen",
        "nDCG, at best one",
        [reader.moment_of(model["trained_at"]) for model in trained],
        [
            Series(title, [values.get(target) for values in found])
            for target, title in _TARGETS.items()
            if any(target in values for values in found)
        ],
        kind="ratio",
        label_name="Trained",
    )


def _own_metrics(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a version's own metrics, by what was to be found."""
    own: dict[str, dict[str, Any]] = {}
    for metric in model["metrics"]:
        if metric["algorithm"] == model["algorithm"]:
            # The first of a target is the version's own; after it comes that of the one that was served then.
            own.setdefault(metric["target"], metric)
    return own


def _of_product(source: Source, reader: Reader, product: str) -> tuple[Listing, ...]:
    return tuple(
        related(reader, id_, title, source.get(f"/api/{route}/{product}", n=_LISTED).rows("items"))
        for id_, title, route in (
            ("similar", f"Similar to {product}", "item-to-item"),
            ("together", f"Bought together with {product}", "bought-together"),
        )
    )


def _of_person(source: Source, reader: Reader, person: str) -> list[Listing | Sequence[Listing]]:
    listed = source.get(f"/api/recommend/{person}", n=_LISTED)
    events = source.get("/real-time-events", user_id=person, limit=_LISTED)
    products = products_named(source, (event["product_id"] for event in events.rows("real_time_events")))
    again = source.get(f"/api/buy-again/{person}", n=_LISTED)
    prediction = source.get(f"/api/predictions/{person}")
    visits = source.get("/sessions", user_id=person, sort="start_time", limit=_LISTED)
    chances = [
        [Cell(f"Within {days} days"), Cell(reader.percent(100 * chance, 1), is_number=True)]
        for days, chance in ((days, prediction.content.get(f"probability_{days}_days")) for days in (7, 28))
        if chance is not None
    ]
    if session := prediction.content.get("session"):
        chances.append(
            [Cell("In this visit"), Cell(reader.percent(100 * session["probability"], 1), is_number=True)]
        )
    return [
        (
            _products(
                reader, "list", "Recommended", listed.rows("items"), listed.content.get("message") or ""
            ),
            Listing(
                "events",
                "What they did last",
                ["Event", "Product", "When"],
                [
                    [
                        Cell(event["event_type"].replace("_", " ")),
                        product_cell(products[event["product_id"]])
                        if event["product_id"]
                        else Cell(event["query"] or ""),
                        Cell(reader.moment_of(event["event_time"])),
                    ]
                    for event in events.rows("real_time_events")
                ],
                empty="No live event is theirs.",
            ),
        ),
        (
            _products(reader, "again", "To buy again", again.rows("items"), ""),
            Listing(
                "visits",
                "Their visits",
                ["Began", "Events", "Views", "Purchases", "Revenue"],
                [
                    [
                        Cell(reader.moment_of(visit["start_time"])),
                        *(
                            Cell(reader.number(visit[name]), is_number=True)
                            for name in ("total_events", "views", "purchases")
                        ),
                        Cell(reader.money(visit["revenue"]), is_number=True),
                    ]
                    for visit in visits.rows("sessions")
                ],
                empty="They have not been there.",
            ),
        ),
        Listing(
            "chances",
            "How likely they are to buy",
            ["When", "Probability"],
            chances,
            note="; ".join(prediction.content.get("reasons", ())),
            empty="No model says so of them.",
        ),
    ]


def _products(reader: Reader, id_: str, title: str, items: list[dict[str, Any]], note: str) -> Listing:
    return Listing(
        id_,
        title,
        ["Product", "Why", "By", "Price"],
        [
            [
                product_cell(item),
                Cell(item["reason"]),
                Cell(item["algorithm"].replace("_", " ")),
                Cell(reader.money(item["price"]), is_number=True),
            ]
            for item in items
        ],
        note=note,
        empty="There is none.",
    )


def _models(reader: Reader, models: list[dict[str, Any]]) -> Listing:
    rows = []
    for model in models:
        figures = [
            f"{target.replace('_', ' ')}, {metric['algorithm'].replace('_', ' ')}: {name} {reader.number(value, 3)}"
            for target, metric in _own_metrics(model).items()
            for name, value in list(metric["values"].items())[:1]
            if value is not None
        ]
        rows.append(
            [
                Cell(model["model_version"]),
                Cell(model["answers"].replace("_", " ")),
                Cell(model["algorithm"].replace("_", " ")),
                Cell("yes" if model["is_served"] else "no"),
                Cell(reader.moment_of(model["trained_at"])),
                Cell("; ".join(figures)),
            ]
        )
    return Listing(
        "models",
        "The models' record",
        ["Version", "Answers", "Algorithm", "Served", "Trained", "Judged on what it had not seen"],
        rows,
        empty="No model has been published yet: materialise `train` in Dagster.",
    )


def _experiments(reader: Reader, experiments: list[dict[str, Any]]) -> Listing:
    rows = [
        [
            Cell(f"{experiment['name']}: {arm['arm']}"),
            Cell("runs" if experiment["is_running"] else "is over or has yet to start"),
            Cell(reader.number(arm["judged_units"]), is_number=True),
            *(
                Cell(reader.percent(100 * arm[name]) if arm[name] is not None else "", is_number=True)
                for name in ("click_through", "conversion")
            ),
            Cell(reader.money(arm["revenue_per_unit"]), is_number=True),
            Cell(arm["decision"]),
        ]
        for experiment in experiments
        for arm in experiment["arms"]
    ]
    return Listing(
        "experiments",
        "Experiments",
        ["Arm", "State", "Judged persons", "Clicked", "Bought", "Revenue of one", "Decision"],
        rows,
        empty="None is declared: EXPERIMENTS names the file of them.",
    )
