"""Queries of the streams that stand still, by what their process last wrote."""

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect, explained
from clickstream_assets.streaming.owner import owner

SILENCE_SECONDS = 60.0
"""A process that runs the streams reports every few seconds."""


def standing_still(settings: Settings) -> dict[str, str]:
    """Return the queries that stand still, each with the reason.

    These are the ones that an error has stopped, until a batch of theirs succeeds, and those whose process has
    reported nothing for SILENCE_SECONDS and has the streams all the same.

    Raises:
        PostgresError: the database cannot be reached.
    """
    with explained(settings), connect(settings) as connection:
        rows = connection.execute(
            "SELECT query, error, extract(epoch FROM now() - updated_at)::float8 FROM stream_status ORDER BY query"
        ).fetchall()
    reasons = {query: error for query, error, _ in rows if error}
    silent = {query: age for query, _, age in rows if age > SILENCE_SECONDS and query not in reasons}
    holder = owner(settings) if silent else None
    # A run of Dagster's writes when it ends.
    if holder and holder.startswith("clickstream stream"):
        for query, age in silent.items():
            reasons[query] = f"{holder} has reported nothing for {age:.0f} s; its log says why"
    return reasons
