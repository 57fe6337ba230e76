"""The publication of lists that arms of experiments serve, beside those that everybody else gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from clickstream_assets.catalogue import EXPERIMENT_RECOMMENDATIONS
from clickstream_assets.recommender.algorithms import TrainingSet, fit
from clickstream_assets.recommender.experiments import LIST_ALGORITHMS, Experiment
from clickstream_assets.recommender.parameters import Parameters
from clickstream_assets.recommender.ranking import Model
from clickstream_assets.stores.postgres.publishing import Publication, Scope


def publish_experiment_lists(
    publication: Publication,
    experiments: Iterable[Experiment],
    data: TrainingSet,
    evaluation: Iterable[Mapping[str, Any]],
    rank: Callable[[Model, str], Iterator[pa.RecordBatch]],
) -> dict[str, int]:
    """Publish lists of each algorithm that an arm of an experiment serves, and take away those of others.

    An experiment that has yet to start has its lists already; one that has ended has none.

    Args:
        publication: the transaction.
        experiments: those that are declared.
        data: what is trained on.
        evaluation: MODEL_EVALUATION rows of this training: the parameters of each algorithm.
        rank: makes PRODUCT_RECOMMENDATIONS rows with a model, under the version that it is given.

    Returns:
        Rows by algorithm.
    """
    now = datetime.now(UTC)
    wanted = {
        arm.lists_of
        for experiment in experiments
        if experiment.end is None or now < experiment.end
        for arm in experiment.arms
    }
    trained = {
        row["algorithm"]: row for row in evaluation if row["target"] == "next" and not row["is_served"]
    }
    rows = {}
    for algorithm in LIST_ALGORITHMS:
        lists: Iterator[pa.RecordBatch] = iter(())
        if algorithm in wanted and algorithm in trained:
            row = trained[algorithm]
            lists = rank(
                fit(algorithm, _with(data, row["parameters"])), f"{row['model_version']}-{algorithm}"
            )
        published = publication.publish(
            EXPERIMENT_RECOMMENDATIONS,
            (_of(algorithm, batch) for batch in lists),
            Scope("lists_of", algorithm),
        )
        if algorithm in wanted:
            rows[algorithm] = published.rows
    return rows


def _with(data: TrainingSet, parameters: str) -> TrainingSet:
    """Return the training set with an algorithm's own parameters; the same where it has these."""
    own: Parameters = data.parameters.read(parameters)
    if own == data.parameters:
        return data
    # Without factors, which are of other parameters.
    return TrainingSet.of(data.engine, data.unaged, own, data.products)


def _of(algorithm: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    names = pa.repeat(pa.scalar(algorithm), batch.num_rows)
    return pa.RecordBatch.from_arrays([names, *batch.columns], schema=EXPERIMENT_RECOMMENDATIONS.arrow)
