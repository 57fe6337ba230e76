"""`GET /api/experiments`, and experiments in answers: the arm of whoever asks, and a record of what they were shown.

The file of EXPERIMENTS is read once, when the application is made. Exposures are sent to KAFKA_EXPOSURES_TOPIC by a
thread; an answer neither waits for it nor fails with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import msgspec
from apiflask import APIBlueprint, Schema, fields
from flask import current_app
from psycopg import Connection
from psycopg.rows import DictRow

from clickstream_assets.api import queries
from clickstream_assets.api.database import database
from clickstream_assets.api.fields import UtcTime, schema_of
from clickstream_assets.api.metrics import count_exposures
from clickstream_assets.api.parameters import path_of
from clickstream_assets.api.problems import REQUEST_TOO_LONG, ApiError, documented
from clickstream_assets.api.scopes import needs
from clickstream_assets.catalogue import EXPERIMENT_RESULTS
from clickstream_assets.ingest.experiments import declared_experiments
from clickstream_assets.keys import Scope
from clickstream_assets.recommender.experiments import Assigned, Experiment, assigned
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.background import Background

blueprint = APIBlueprint("experiments", __name__, url_prefix="/api", tag="Experiments")

EXTENSION = "clickstream_experiments"

# Said once of the experiment, and not of each arm.
_OF_THE_EXPERIMENT = {"experiment", "metric", "window_hours", "as_of", "sizes_p_value"}


class InExperiment(Schema):
    """The experiment that an answer is part of."""

    name = fields.String(required=True, metadata={"description": "The experiment"})
    arm = fields.String(required=True, metadata={"description": "The arm that the shopper is in"})


class Experiments:
    """The declared experiments, and the way of exposures to Kafka.

    Raises:
        InputError: the file of EXPERIMENTS cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.declared: tuple[Experiment, ...] = declared_experiments(settings)
        self._with_lists: set[str] = set()
        topic = settings.kafka_exposures_topic
        self._background = Background(settings, topic, count_exposures) if topic else None

    def of_unit(self, connection: Connection[DictRow], unit: str) -> Assigned | None:
        """Return the experiment and the arm that a person, or a visitor who is tied to nobody, is in now.

        None of whose arms has lists that are still to be made: those who asked before would be in it for nothing.
        """
        ready = [each for each in self.declared if self._is_ready(connection, each)]
        return assigned(ready, unit, datetime.now(UTC)) if ready else None

    def _is_ready(self, connection: Connection[DictRow], experiment: Experiment) -> bool:
        for algorithm in experiment.list_algorithms - self._with_lists:
            if not queries.has_lists(connection, algorithm):
                return False
            # From then on each training makes them.
            self._with_lists.add(algorithm)
        return True

    def note(
        self,
        into: Assigned | None,
        unit: str,
        products: Iterable[str],
        model_version: str | None,
        moment_version: str | None,
    ) -> dict[str, str] | None:
        """Note what a unit of an experiment is shown; returns what the answer says of the experiment.

        Args:
            into: the unit's experiment and arm; None notes nothing.
            unit: the person or visitor.
            products: those in the answer, best first.
            model_version: the model of the published lists.
            moment_version: the model that says what comes next.
        """
        if into is None:
            return None
        experiment, arm = into
        record = {
            "exposure_id": uuid4().hex,
            "experiment": experiment.name,
            "arm": arm.name,
            "unit": unit,
            "products": list(products),
            "time": datetime.now(UTC),
            "model_version": model_version,
            "moment_version": moment_version,
        }
        if self._background:
            self._background.send(unit.encode(errors="replace"), msgspec.json.encode(record))
        return {"name": experiment.name, "arm": arm.name}

    def close(self) -> None:
        """Send what is noted, for some seconds at most."""
        if self._background:
            self._background.close()


ExperimentArm = schema_of(
    "ExperimentArm",
    [column for column in EXPERIMENT_RESULTS.columns if column.name not in _OF_THE_EXPERIMENT],
)


class DeclaredExperiment(Schema):
    """One experiment, and what was found by arm."""

    name = fields.String(required=True, metadata={"description": "The experiment"})
    start = UtcTime(required=True, metadata={"description": "When it starts"})
    end = UtcTime(required=True, allow_none=True, metadata={"description": "When it ends; null for never"})
    is_running = fields.Boolean(required=True, metadata={"description": "Whether shoppers are in it now"})
    who = fields.List(
        fields.String(), required=True, metadata={"description": "Whom it is for: persons, visitors or both"}
    )
    metric = fields.String(
        required=True, metadata={"description": "What decides: click_through, conversion or revenue"}
    )
    window_hours = fields.Integer(
        required=True,
        metadata={"description": "Hours from the first exposure on in which what a shopper does counts"},
    )
    as_of = UtcTime(
        required=True,
        allow_none=True,
        metadata={"description": "Time of the newest event that counts; null before anybody was exposed"},
    )
    sizes_p_value = fields.Float(
        required=True,
        allow_none=True,
        metadata={"description": "Chance of arms whose sizes differ as much from their shares, or more"},
    )
    arms = fields.List(
        fields.Nested(ExperimentArm),
        required=True,
        metadata={"description": "The control first; none before the first look at the results"},
    )


class ExperimentList(Schema):
    """The experiments that are declared."""

    experiments = fields.List(
        fields.Nested(DeclaredExperiment), required=True, metadata={"description": "As they are declared"}
    )


@blueprint.get("/experiments")
@needs(Scope.READ)
@blueprint.output(ExperimentList)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(503))
def list_experiments() -> dict[str, Any]:
    """List the experiments that are declared, each with what was found by arm.

    Intervals of figures and differences are of one look, at 95 %. `difference_low` and `difference_high`, `p_value` and
    `decision` hold however often they are looked at.
    """
    with database().snapshot() as connection:
        rows = queries.experiment_results(connection)
    return {"experiments": [_described(experiment, rows) for experiment in experiments().declared]}


@blueprint.get("/experiments/<name>")
@needs(Scope.READ)
@blueprint.input(path_of(name="The experiment's name"), location="path")
@blueprint.output(DeclaredExperiment)
@blueprint.doc(responses=REQUEST_TOO_LONG | documented(404, 422, 503))
def experiment(name: str, **_: object) -> dict[str, Any]:
    """Say what was found by arm of an experiment that is declared."""
    for declared in experiments().declared:
        if declared.name == name:
            with database().snapshot() as connection:
                return _described(declared, queries.experiment_results(connection, name))
    raise ApiError(HTTPStatus.NOT_FOUND, "unknown_experiment", "There is no experiment of this name.")


def _described(experiment: Experiment, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    arms = [row for row in rows if row["experiment"] == experiment.name]
    return {
        "name": experiment.name,
        "start": experiment.start,
        "end": experiment.end,
        "is_running": experiment.runs_at(datetime.now(UTC)),
        "who": [who.value for who in experiment.who],
        "metric": experiment.metric,
        "window_hours": experiment.window_hours,
        "as_of": arms[0]["as_of"] if arms else None,
        "sizes_p_value": arms[0]["sizes_p_value"] if arms else None,
        "arms": arms,
    }


def experiments() -> Experiments:
    """Return the running application's."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Experiments)
    return found
