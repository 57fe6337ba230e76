"""An older version of a model, published again: `clickstream models publish`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from clickstream_assets.catalogue import NEXT_PRODUCT_MODELS, PUBLISHED_MODELS
from clickstream_assets.defs.serving.lists import Learnt, MadeFrom
from clickstream_assets.defs.serving.served import serve, served_row
from clickstream_assets.errors import InputError
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.publishing import Publication, publication

Rows = Mapping[str, dict[str, Any]]


class PublishedAgain(NamedTuple):
    """A version that was published again, and the one before it.

    Attributes:
        answers: The kind of answers that the version gives.
        before: The version that gave them; none if none did, the same if it gives them already.
    """

    answers: str
    before: str | None


def publish_again(settings: Settings, lake: Lake, model_version: str) -> PublishedAgain:
    """Let an older version give its answers again: at once and for all of them, or not at all.

    Lists of recommendations, and what is popular and related, are made anew as they were; what shoppers have met since
    stays known. The version is what the next training compares with (`served`).

    Args:
        settings: those of the database and of the lists' length.
        lake: has the tables that the lists were made from.
        model_version: of published_models or next_product_models.

    Raises:
        InputError: there is no such version, or the lake no longer has what its lists are made from.
        PostgresError: the database cannot be reached.
    """
    with publication(settings) as transaction:
        lists, next_product = (
            {row["model_version"]: row for row in transaction.read(table).to_pylist()}
            for table in (PUBLISHED_MODELS, NEXT_PRODUCT_MODELS)
        )
        if model_version not in {*lists, *next_product}:
            raise InputError(_unknown(settings, lake, model_version, lists, next_product))
        answers = "recommendations" if model_version in lists else "next_product"
        served = served_row(transaction, answers)
        before = served["model_version"] if served else None
        if before != model_version:
            if model_version in lists:
                _publish_lists(transaction, settings, lake, lists[model_version])
            serve(transaction, answers, model_version, put_back_at=datetime.now(UTC))
    return PublishedAgain(answers, before)


def _publish_lists(transaction: Publication, settings: Settings, lake: Lake, row: dict[str, Any]) -> None:
    made_from = MadeFrom.read(row["made_from"], lake, settings)
    if lost := made_from.lost(lake):
        raise InputError(
            f"Version {row['model_version']} cannot be published again: the lake no longer has the files of "
            f"{', '.join(lost)} that its lists were made from. LAKE_RETENTION_DAYS={settings.lake_retention_days} says "
            "how long it keeps them"
        )
    parameters = Parameters.of(settings).read(row["parameters"])
    learnt = Learnt.of(lake, row["algorithm"], parameters, made_from)
    # No new stamp: to Dagster that would be a database of another time, and it would publish the newest again.
    learnt.publish(transaction, settings.recommendations_per_user, row["model_version"])


def _unknown(settings: Settings, lake: Lake, model_version: str, lists: Rows, next_product: Rows) -> str:
    there = [
        version
        for version in _newest_first(lists)
        if not MadeFrom.read(lists[version]["made_from"], lake, settings).lost(lake)
    ]
    kinds = (("recommendations", there), ("next_product", _newest_first(next_product)))
    named = "; ".join(f"{answers}: {', '.join(versions) or 'none'}" for answers, versions in kinds)
    return f"No version {model_version!r} of a model was published. There are, of {named}"


def _newest_first(rows: Rows) -> list[str]:
    return sorted(rows, key=lambda version: rows[version]["trained_at"], reverse=True)
