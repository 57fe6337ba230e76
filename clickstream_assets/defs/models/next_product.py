"""The model of the product that a visitor goes to next: trained, judged event by event, and written down."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import dagster as dg
import pyarrow as pa

from clickstream_assets.analytics.product_details import kinds
from clickstream_assets.catalogue import (
    INTERACTIONS,
    NEXT_PRODUCT_MODELS,
    NEXT_PRODUCT_PARTS,
    PRODUCTS,
    SEEN_PRODUCTS,
)
from clickstream_assets.catalogue.units import MINUTE
from clickstream_assets.defs.assets import URGENT, Metadata, table_asset
from clickstream_assets.defs.models.training import EVENTS_BATCH, TrainingData
from clickstream_assets.defs.plots import text_table
from clickstream_assets.defs.runs import metadata_value
from clickstream_assets.engine import functions_of
from clickstream_assets.recommender.interactions import product_events
from clickstream_assets.recommender.visits import Judgement, Memory, Visits
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake

_EVENTS_PER_SESSION = 10
_PART_BYTES = 750_000


@table_asset(
    *(NEXT_PRODUCT_MODELS, NEXT_PRODUCT_PARTS),
    deps=["interactions", "interaction_days", "shopper_events", "products"],
    op_tags=URGENT,
)
def next_product_models(context: dg.AssetExecutionContext, settings: Settings, lake: Lake) -> Metadata:
    """The sessions of before, and what speaks for a product, by which the API says what a visitor goes to next.

    Of the newest NEXT_PRODUCT_SESSIONS. Judged on the latest EVALUATION_TEST_FRACTION of the events by a model that was
    trained on those before alone.
    """
    data = TrainingData.of_run(context, lake, settings)
    visits = _visits(lake, data, _EVENTS_PER_SESSION * settings.next_product_sessions)
    memory = Memory(settings.session_gap_minutes * MINUTE, settings.recent_minutes * MINUTE)
    most = settings.next_product_sessions
    model = visits.trained(len(visits), most, memory)
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    judgements: list[Judgement] = []
    if model is not None:
        judgements = visits.judged(settings.evaluation_test_fraction, most, memory)
        content = model.to_bytes()
        made = context.instance.get_latest_materialization_event(dg.AssetKey(INTERACTIONS.name))
        batch = str(metadata_value(made, EVENTS_BATCH) or 0)
        version = f"{batch}-{blake2b(content, digest_size=4).hexdigest()}"
        parts = parts_of(version, content)
        rows = [
            {
                "model_version": version,
                "trained_on": f"events batch {batch}",
                "trained_at": datetime.now(UTC),
                "parts": len(parts),
                "sessions": len(model.sessions),
                "products": len(model.assortment.ids),
                **_figures(judgements),
            }
        ]
    for table, its_rows in ((NEXT_PRODUCT_PARTS, parts), (NEXT_PRODUCT_MODELS, rows)):
        lake.replace(table, lake.engine.from_arrow(pa.Table.from_pylist(its_rows, schema=table.arrow)))
    names = ("target", "targets", "hit_rate", "reciprocal_rank", "popular_hit_rate")
    return {
        "model_version": rows[0]["model_version"] if rows else "",
        "evaluation": text_table(
            names,
            [(each.target, each.targets, *(f"{value:.4f}" for value in each[2:])) for each in judgements],
        ),
    }


def parts_of(model_version: str, content: bytes) -> list[dict[str, Any]]:
    """Return NEXT_PRODUCT_PARTS rows of a model that is written down."""
    return [
        {
            "model_version": model_version,
            "part": number,
            "content": b64encode(content[begin : begin + _PART_BYTES]).decode(),
        }
        for number, begin in enumerate(range(0, len(content), _PART_BYTES), start=1)
    ]


def _visits(lake: Lake, data: TrainingData, most: int) -> Visits:
    """Read the newest product events of those who may be profiled, `most` of them."""
    days = data.interaction_days(lake)
    F, _ = functions_of(days)
    column = F.col
    counts = days.groupBy("event_date").agg(
        F.sum(column("views") + column("add_to_carts") + column("purchases")).cast("long").alias("events")
    )
    first, found = None, 0
    for row in sorted(
        lake.engine.to_arrow(counts).to_pylist(), key=lambda row: row["event_date"], reverse=True
    ):
        if found >= most:
            break
        first, found = row["event_date"], found + row["events"]
    events = product_events(data.shopper_events(lake))
    if first is not None:
        events = events.where(column("event_date") >= F.lit(first))
    newest = events.select(
        *("event_time", "event_id", "user_id", "event_type", "product_id", "product_category", "price")
    ).orderBy(column("event_time").desc(), column("event_id").desc())
    products = kinds(lake.read(PRODUCTS), lake.read(SEEN_PRODUCTS))
    return Visits.of(lake.engine.to_arrow(newest.limit(most)), lake.engine.to_arrow(products))


def _figures(judgements: list[Judgement]) -> dict[str, Any]:
    of_target = {judgement.target: judgement for judgement in judgements}
    figures: dict[str, Any] = {}
    for target, targets, hit_rate in (
        ("next", "targets", "hit_rate"),
        ("next_of_new_visitors", "new_targets", "new_hit_rate"),
        ("next_other", "other_targets", "other_hit_rate"),
    ):
        judgement = of_target.get(target)
        figures[targets] = judgement.targets if judgement else 0
        figures[hit_rate] = judgement.hit_rate if judgement and judgement.targets else None
    popular = of_target.get("next")
    figures["popular_hit_rate"] = popular.popular_hit_rate if popular and popular.targets else None
    return figures
