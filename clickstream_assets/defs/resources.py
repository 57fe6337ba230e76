"""Dagster resources: the settings and everything that does I/O, opened only when an asset asks."""

import multiprocessing
import os
from contextlib import AbstractContextManager

import dagster as dg
from dagster_pyspark import LazyPySparkResource
from pydantic import PrivateAttr

from clickstream_assets.defs.jobs import GIVES_WAY
from clickstream_assets.defs.partitions import daily
from clickstream_assets.engine import DuckDBEngine, Engine, SparkEngine, spark_session
from clickstream_assets.settings import EngineName, Settings, load_settings
from clickstream_assets.stores.choices import require_choices
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.lake import Lake
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.stores.postgres.publishing import Publication, publication


class SettingsResource(dg.ConfigurableResource):
    """Gives assets the settings as they are when the run starts."""

    _settings: Settings | None = PrivateAttr(None)

    def get(self) -> Settings:
        """Return the settings, read and validated at the first call, with the first day that the partitions have."""
        if self._settings is None:
            first = daily().start.date()
            self._settings = load_settings().model_copy(update={"events_start_date": first})
        return self._settings


class ComputeResource(dg.ConfigurableResource):
    """Gives assets the engine that the settings name; Spark starts when it is first used, and not before."""

    settings: SettingsResource

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Let a run that gives way have the processors that others leave, the engine's threads and processes included.

        Only where the process is the run's own, as that of every launched run is: there is no way back from it.
        """
        if context.run and GIVES_WAY in context.run.tags and multiprocessing.parent_process():
            niceness = max(int(context.run.tags[GIVES_WAY]), os.nice(0))
            os.setpriority(os.PRIO_PROCESS, 0, niceness)

    def engine(self) -> Engine:
        """Return the engine. A process has one Spark session, so every call shares it."""
        settings = self.settings.get()
        if settings.engine is EngineName.DUCKDB:
            return DuckDBEngine(settings)
        return SparkEngine(
            lambda: spark_session(
                settings, lambda config: LazyPySparkResource(spark_config=config).spark_session
            )
        )


class KafkaResource(dg.ConfigurableResource):
    """Gives assets and sensors the topics of click events."""

    settings: SettingsResource

    def get(self) -> Topics:
        """Return the topics that the settings name; nothing is connected yet."""
        return Topics(self.settings.get())


class LakeResource(dg.ConfigurableResource):
    """Gives assets the Delta tables, with the engine to compute on them."""

    settings: SettingsResource
    compute: ComputeResource
    _has_same_choices: bool = PrivateAttr(False)

    def get(self) -> Lake:
        """Return the lake that the settings name; the first call of a run looks at its time zone.

        Raises:
            InputError: it was begun with another SHOP_TIME_ZONE.
        """
        settings = self.settings.get()
        lake = Lake(settings.lake, self.compute.engine())
        if not self._has_same_choices:
            require_choices(lake, settings)
            self._has_same_choices = True
        return lake


class PostgresResource(dg.ConfigurableResource):
    """The served tables' database, as the settings name it when a run asks for it."""

    def publication(self) -> AbstractContextManager[Publication]:
        """Publish tables together: committed when the block ends, undone when it raises.

        Raises:
            SettingsError: a setting cannot be used.
            PostgresError: the database cannot be reached or does not carry the publication out.
        """
        return publication(load_settings())

    def serving(self) -> tuple[str, str] | None:
        """Return the algorithm of the recommendations that are being served, and its parameters as JSON.

        None before the first.

        Raises:
            SettingsError: a setting cannot be used.
            PostgresError: the database cannot be reached.
        """
        settings = load_settings()
        served = "SELECT algorithm, parameters FROM published_models JOIN served_models USING (model_version)"
        with explained(settings), connect(settings) as connection:
            row = connection.execute(served).fetchone()
        return (row[0], row[1]) if row else None


@dg.definitions
def resources() -> dg.Definitions:
    """Bind the resources; all of them follow the settings."""
    settings = SettingsResource()
    compute = ComputeResource(settings=settings)
    return dg.Definitions(
        resources={
            "settings": settings,
            "compute": compute,
            "lake": LakeResource(settings=settings, compute=compute),
            "kafka": KafkaResource(settings=settings),
            "postgres": PostgresResource(),
        }
    )
