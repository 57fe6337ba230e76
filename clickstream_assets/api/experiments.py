"""Experiments on what is recommended: the arm of whoever asks, and a record of what they were shown.

The file of EXPERIMENTS is read once, when the application is made. Exposures are sent to KAFKA_EXPOSURES_TOPIC by a
thread; an answer neither waits for it nor fails with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from apiflask import Schema, fields
from flask import current_app

from clickstream_assets.api.metrics import count_exposures
from clickstream_assets.ingest.experiments import declared_experiments
from clickstream_assets.recommender.experiments import Assigned, Experiment, assigned
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.background import Background

EXTENSION = "clickstream_experiments"


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
        topic = settings.kafka_exposures_topic
        self._background = Background(settings, topic, count_exposures) if topic else None

    def of_unit(self, unit: str) -> Assigned | None:
        """Return the experiment and the arm that a person, or a visitor who is tied to nobody, is in now."""
        return assigned(self.declared, unit, datetime.now(UTC)) if self.declared else None

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


def experiments() -> Experiments:
    """Return the running application's."""
    found = current_app.extensions[EXTENSION]
    assert isinstance(found, Experiments)
    return found
