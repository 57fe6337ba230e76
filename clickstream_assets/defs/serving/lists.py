"""The lists of a version of the recommendations: made from versions of the lake's tables, and published together.

A training publishes those of the newest tables. An older version is published again by making its lists anew from the
tables that it was made from, which the lake keeps for LAKE_RETENTION_DAYS: nothing else has to be kept of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from clickstream_assets.catalogue import (
    BOUGHT_PRODUCTS,
    INTERACTIONS,
    ITEM_FACTORS,
    MET_PRODUCTS,
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    RELATED_PRODUCTS,
    SHOPPER_EVENTS,
    TABLES,
)
from clickstream_assets.defs.models.training import TrainingData
from clickstream_assets.engine import DataFrame, Engine, functions_of
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.baskets import bought_together
from clickstream_assets.recommender.interactions import NotEnoughInteractions
from clickstream_assets.recommender.neighbours import similar_products
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.ranking import Model, Products
from clickstream_assets.recommender.selection import bought_products, met_products, recommend
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake, conform
from clickstream_assets.stores.postgres.publishing import Publication, Published

# Of 20 rows a user, at some 150 bytes a row: 600 MB.
USERS_PER_CHUNK = 200_000
RELATED = 50
"""Products that are kept as related to each: some are left when a request wants one category or price."""


@dataclass(frozen=True)
class MadeFrom:
    """Sources of the lists of a version.

    Attributes:
        versions: Versions of the lake's tables by their names; without ALS's factors they are learnt anew.
        trained_on: The data of the training.
    """

    versions: Mapping[str, int]
    trained_on: TrainingData

    @classmethod
    def newest(cls, lake: Lake, trained_on: TrainingData, *, with_factors: bool) -> Self:
        """Take the newest version of each table that a training makes."""
        tables = (INTERACTIONS, POPULAR_PRODUCTS, *((ITEM_FACTORS,) if with_factors else ()))
        return cls({table.name: lake.version(table) for table in tables}, trained_on)

    @property
    def as_json(self) -> str:
        """All of it, as `read` reads it."""
        return json.dumps({"versions": dict(self.versions), "trained_on": self.trained_on.metadata})

    @classmethod
    def read(cls, text: str, lake: Lake, settings: Settings) -> Self:
        """Read what `as_json` wrote."""
        written = json.loads(text)
        return cls(written["versions"], TrainingData.of(written["trained_on"], lake, settings))

    def lost(self, lake: Lake) -> list[str]:
        """Return the tables of which the lake no longer has the version."""
        versions = {**self.trained_on.versions, **self.versions}
        needed = (*self.versions, SHOPPER_EVENTS.name)
        return [name for name in needed if not lake.has(TABLES[name], versions[name])]


class Changes(NamedTuple):
    """Changes by a publication, and the number of users who have a list."""

    lists: Published
    related: Published
    users: int


@dataclass(frozen=True)
class Learnt:
    """Models that are learnt anew from the tables of a version."""

    data: TrainingSet
    model: Model
    popular: pa.Table
    events: DataFrame

    @classmethod
    def of(cls, lake: Lake, algorithm: str, parameters: Parameters, made_from: MadeFrom) -> Self:
        """Train an algorithm on the tables of a version."""
        engine, versions = lake.engine, made_from.versions
        popular = conform(
            engine.to_arrow(lake.read(POPULAR_PRODUCTS, versions[POPULAR_PRODUCTS.name])), POPULAR_PRODUCTS
        )
        factors = versions.get(ITEM_FACTORS.name)
        data = TrainingSet.of(
            engine,
            lake.read(INTERACTIONS, versions[INTERACTIONS.name]),
            parameters,
            Products.of(popular),
            None if factors is None else engine.to_arrow(lake.read(ITEM_FACTORS, factors)),
        )
        return cls(data, fit(algorithm, data), popular, made_from.trained_on.shopper_events(lake))

    @property
    def buy_again(self) -> str:
        """Half-life and usual rate of buying again, as PUBLISHED_MODELS has them."""
        model = self.data.buy_again
        return json.dumps({"half_life_days": model.ageing.half_life_days, "usual_rate": model.usual_rate})

    def lists(
        self, model: Model, n: int, model_version: str, users: list[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rank for a chunk of users after another; all lists at once would be n rows of text per user in memory.

        Adds to `users`, for each chunk, how many of them have a list.
        """
        engine = self.data.engine
        for of_chunk in _by_users(engine, self.data.unaged):
            ranked = recommend(engine, model, of_chunk, n, model_version)
            rows = conform(engine.to_arrow(ranked), PRODUCT_RECOMMENDATIONS)
            engine.release(ranked)
            if users is not None:
                users.append(len(rows["user_id"].unique()))
            yield from rows.to_batches()

    def publish(self, publication: Publication, n: int, model_version: str) -> Changes:
        """Publish the lists of all users, and popular and related products."""
        users: list[int] = []
        changes = publication.publish(
            PRODUCT_RECOMMENDATIONS, self.lists(self.model, n, model_version, users)
        )
        publication.publish(POPULAR_PRODUCTS, self.popular)
        related = publication.publish(RELATED_PRODUCTS, self._related())
        return Changes(changes, related, sum(users))

    def publish_histories(self, publication: Publication) -> None:
        """Publish what each user has met and bought."""
        engine, rows = self.data.engine, self.data.unaged
        publication.publish(
            MET_PRODUCTS,
            (
                batch
                for of_chunk in _by_users(engine, rows)
                for batch in conform(engine.to_arrow(met_products(of_chunk)), MET_PRODUCTS).to_batches()
            ),
        )
        publication.publish(
            BOUGHT_PRODUCTS,
            (
                batch
                for of_chunk in _by_users(engine, rows)
                for batch in bought_products(engine, of_chunk).to_batches()
            ),
        )

    def _related(self) -> pa.Table:
        together = bought_together(self.data.engine, self.events, RELATED)
        try:
            return pa.concat_tables([similar_products(self.data.item_knn, RELATED), together])
        except NotEnoughInteractions:
            return together


def _by_users(engine: Engine, interactions: DataFrame) -> Iterator[DataFrame]:
    """Yield the interactions of a chunk of users after another, all of each user's."""
    ids = pc.unique(engine.to_arrow(interactions.select("user_id").distinct())["user_id"])
    ids = ids.take(pc.sort_indices(ids))
    F, _ = functions_of(interactions)
    for start in range(0, len(ids), USERS_PER_CHUNK):
        first, last = ids[start].as_py(), ids[min(start + USERS_PER_CHUNK, len(ids)) - 1].as_py()
        yield interactions.where(F.col("user_id").between(first, last))
