"""`clickstream prepare`: what servers need before the pipeline can use them."""

import typer

from clickstream_assets.settings import load_settings
from clickstream_assets.stores.prepare import prepare_servers


def prepare_command() -> None:
    """Make or upgrade the served tables in PostgreSQL, and make the topic in Kafka if it is missing.

    Where POSTGRES_API_USER, POSTGRES_PIPELINE_USER or DAGSTER_POSTGRES_USER are set, also these roles, with their
    rights.

    Says what it did. The lake's tables and Elasticsearch's indices are made
    by what writes them.
    """
    prepare_servers(load_settings(), typer.echo)
