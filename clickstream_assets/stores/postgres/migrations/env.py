"""Alembic's environment: migrate in the transaction that `migrate` hands over, which also commits it."""

from alembic import context

from clickstream_assets.stores.postgres.metadata import METADATA, VERSION_TABLE

attributes = context.config.attributes

context.configure(
    connection=attributes["connection"],
    # A test hands over another, to see what autogenerate makes of a difference.
    target_metadata=attributes.get("metadata", METADATA),
    version_table=VERSION_TABLE,
    compare_server_default=True,
    on_version_apply=lambda step, **_: attributes["applied"].append(step.up_revision),
)
attributes["before"] = context.get_context().get_current_revision()
attributes["applied"] = []
context.run_migrations()
attributes["revision"] = context.get_context().get_current_revision()
