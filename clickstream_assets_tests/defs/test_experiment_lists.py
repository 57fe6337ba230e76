"""Lists that arms of experiments serve: published beside those of everybody else, for as long as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import INTERACTIONS, PRODUCT_RECOMMENDATIONS
from clickstream_assets.defs.serving.experiment_lists import publish_experiment_lists
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.experiments import Experiment
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.ranking import Model
from clickstream_assets.recommender.selection import recommend
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import conform
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.databases import fresh_database, query
from clickstream_assets_tests.recommender.shop import interactions_in, random_events

PARAMETERS = Parameters(factors=4, iterations=3, regularization=0.1, alpha=5.0, seed=42)
OTHERS = Parameters(factors=4, iterations=3, regularization=0.1, alpha=5.0, seed=42, category_weight=0.0)


def experiment(*serves: str, end: timedelta = timedelta(days=1)) -> Experiment:
    now = datetime.now(UTC)
    arms = [{"name": name, "share": 0.2, "serves": name} for name in ("control", *serves)]
    given = {"name": "-".join(("x", *serves)), "start": now - timedelta(days=9), "end": now + end}
    return Experiment.model_validate(given | {"arms": arms})


@pytest.fixture
def database(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield own


def ranked(data: TrainingSet, model: Model, version: str) -> Iterator[pa.RecordBatch]:
    rows = data.engine.to_arrow(recommend(data.engine, model, data.unaged, 5, version))
    yield from conform(rows, PRODUCT_RECOMMENDATIONS).to_batches()


def evaluation(version: str, **parameters: Parameters) -> list[dict[str, Any]]:
    return [
        {
            **{"target": "next", "algorithm": algorithm, "is_served": False, "model_version": version},
            "parameters": its.as_json,
        }
        for algorithm, its in parameters.items()
    ]


def test_lists_of_each_algorithm_are_there_while_an_experiment_wants_them(
    duckdb_engine: DuckDBEngine, database: Settings
):
    table = duckdb_engine.to_arrow(interactions_in(duckdb_engine.from_arrow(random_events())))
    interactions = duckdb_engine.from_arrow(table.cast(INTERACTIONS.arrow))
    data = TrainingSet.of(duckdb_engine, interactions, PARAMETERS)
    judged = partial(evaluation, als=PARAMETERS, item_knn=OTHERS, trending=PARAMETERS)

    def published(version: str, *experiments: Experiment) -> dict[str, int]:
        with publication(database) as transaction:
            return publish_experiment_lists(
                transaction, experiments, data, judged(version), partial(ranked, data)
            )

    rows = published("v1", experiment("als", "popularity"), experiment("item_knn", "als"))
    users = len(set(table["user_id"].to_pylist()))
    assert rows == {"als": 5 * users, "item_knn": 5 * users}
    found = query(
        database, "SELECT lists_of, model_version, count(*) FROM experiment_recommendations GROUP BY 1, 2"
    )
    assert set(found) == {("als", "v1-als", 5 * users), ("item_knn", "v1-item_knn", 5 * users)}
    # By the parameters that the algorithm was judged with.
    columns = ("user_id", "product_id", "rank")
    names = ", ".join(columns)
    for algorithm, parameters in (("als", PARAMETERS), ("item_knn", OTHERS)):
        model = fit(algorithm, TrainingSet.of(duckdb_engine, interactions, parameters))
        expected = pa.Table.from_batches(ranked(data, model, "")).select(columns).to_pylist()
        of_one = f"SELECT {names} FROM experiment_recommendations WHERE lists_of = '{algorithm}'"
        assert set(query(database, of_one)) == {tuple(row.values()) for row in expected}
    # The same again is not written; what nobody wants any more goes.
    assert published("v2", experiment("item_knn"), experiment("als", end=-timedelta(days=1))) == {
        "item_knn": 5 * users
    }
    versions = "SELECT DISTINCT lists_of, model_version FROM experiment_recommendations"
    assert query(database, versions) == [("item_knn", "v1-item_knn")]
    assert published("v3") == {}
    assert query(database, versions) == []
