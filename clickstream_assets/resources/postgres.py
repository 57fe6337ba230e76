"""PostgreSQL as a Dagster resource."""

from contextlib import AbstractContextManager

from dagster import ConfigurableResource

from clickstream_assets.postgres.connection import connect, explained
from clickstream_assets.postgres.publishing import Publication, publication
from clickstream_assets.settings import load_settings


class PostgresResource(ConfigurableResource):
    """The served tables' database, as the settings name it when a run asks for it."""

    def publication(self) -> AbstractContextManager[Publication]:
        """Publish tables together: committed when the block ends, undone when it raises.

        Raises:
            SettingsError: a setting cannot be used.
            PostgresError: the database cannot be reached or does not carry the publication out.
        """
        return publication(load_settings())

    def serving_algorithm(self) -> str | None:
        """Return the algorithm of the recommendations that are being served; None before the first.

        Raises:
            SettingsError: a setting cannot be used.
            PostgresError: the database cannot be reached.
        """
        settings = load_settings()
        served = "SELECT algorithm FROM published_models JOIN served_models USING (model_version)"
        with explained(settings), connect(settings) as connection:
            row = connection.execute(served).fetchone()
        return row[0] if row else None
