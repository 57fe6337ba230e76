"""Alembic's environment: migrate in the transaction that `migrate` hands over, which also commits it."""

from alembic import context

from clickstream_assets.stores.postgres.metadata import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    # A test hands over another, to see what autogenerate makes of a difference.
    target_metadata=context.config.attributes.get("metadata", METADATA),
    version_table="clickstream_schema_version",
    compare_server_default=True,
)
context.run_migrations()
context.config.attributes["revision"] = context.get_context().get_current_revision()
