"""Alembic's environment: migrate in the transaction that `migrate` hands over, which also commits it."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], version_table="clickstream_schema_version"
)
context.run_migrations()
context.config.attributes["revision"] = context.get_context().get_current_revision()
