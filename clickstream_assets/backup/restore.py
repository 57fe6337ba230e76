"""Puts a backup back into stores that are empty.

A return that is killed is run again: until all stores are whole, a sign in the lake (`marker.py`) says of which backup
and to where it was begun, and what it has written by then does not count as somebody's.
"""

from __future__ import annotations

from clickstream_assets.backup.checkpoint import put_back_checkpoints
from clickstream_assets.backup.dagster import HISTORY, REVISION, database_of, end_runs, instance_of
from clickstream_assets.backup.databases import filled_table, moment, put_back_rows, revision_of
from clickstream_assets.backup.erasures import erase_since
from clickstream_assets.backup.errors import BackupError
from clickstream_assets.backup.lake import put_back_tables
from clickstream_assets.backup.manifest import Backup, choose, verify
from clickstream_assets.backup.marker import NAME, Marker, read_marker, write_marker
from clickstream_assets.backup.place import Counting, Place, uncounted
from clickstream_assets.files import Progress, silent
from clickstream_assets.settings import DatabaseRole, Settings
from clickstream_assets.stores.kafka.consumer import TopicError
from clickstream_assets.stores.kafka.topic import Topics
from clickstream_assets.stores.postgres.metadata import METADATA
from clickstream_assets.stores.postgres.migrate import migrate, remake
from clickstream_assets.stores.postgres.roles import prepare_roles
from clickstream_assets.streaming.owner import always_on, owner


def restore(
    settings: Settings,
    source: str,
    which: str | None = None,
    progress: Progress = silent,
    counting: Counting = uncounted,
) -> Backup:
    """Put a backup back.

    Args:
        settings: Name the stores, which are empty.
        source: What `back_up` was given.
        which: Name of the backup (default: the newest).
        progress: Gets a line on each store.
        counting: Opens counts of bytes.

    Raises:
        BackupError: a store is not empty, or the backup is damaged. Nothing was changed, or, once files are being
            written, it is to be run again.
        PostgresError: a database cannot be written.
    """
    place = Place(source)
    backup = choose(place, which)
    with instance_of(settings) as instance:
        dagster = database_of(instance, settings) if instance else None
        lake, checkpoints = Place(settings.lake), Place(settings.checkpoints)
        marker = Marker(
            backup.name, source, checkpoints.uri, _spelt(settings), _spelt(dagster) if dagster else None
        )
        if _is_resumed(lake, marker):
            progress(f"Going on with the return of backup {backup.name}")
        else:
            _refuse_stores_in_use(settings, dagster, lake, checkpoints)
        _refuse_owner(settings)
        _refuse_other_dagster(backup, dagster)
        verify(place, backup, counting)
        progress(f"Backup {backup.name}: {len(backup.files):,} files, each as it was written")

        write_marker(lake, marker)
        put_back_tables(place, backup, lake, counting)
        rows = sum(table.rows for table in backup.lake.tables.values())
        progress(f"Lake: {len(backup.lake.tables)} tables, {rows:,} rows")
        put_back_checkpoints(place, backup, checkpoints)
        if backup.stream:
            progress(f"Stream: up to batch {backup.stream.batch_id}")
        remake(settings, backup.postgres.revision)
        put_back_rows(settings, backup.postgres, place, backup)
        revision = migrate(settings).revision
        # The tables were made anew, without the rights that others have on them.
        prepare_roles(settings)
        progress(f"PostgreSQL: {len(backup.postgres.tables)} tables, at revision {revision}")
        if dagster and backup.dagster and instance:
            put_back_rows(dagster, backup.dagster, place, backup)
            ended = end_runs(instance, backup.name)
            progress(
                f"Dagster: {len(backup.dagster.tables)} tables; {ended} runs that were under way are canceled"
            )
        for number, records in erase_since(settings, place, backup).items():
            progress(f"Erasure {number}, of after this backup, is applied: {records:,} records")
        lake.remove(NAME)
    _say_of_topics(settings, backup, progress)
    return backup


def _spelt(settings: Settings) -> str:
    return f"{settings.postgres_host}:{settings.postgres_port}/{settings.postgres_db}"


def _is_resumed(lake: Place, marker: Marker) -> bool:
    """Return whether this return was begun before, with the same stores."""
    begun = read_marker(lake)
    if begun is None:
        return False
    if begun != marker:
        raise BackupError(
            f"LAKE_PATH={lake.uri} is not empty: the return of backup {begun.backup} from {begun.source} has begun "
            f"there, with PostgreSQL at {begun.postgres}, Dagster at {begun.dagster} and "
            f"CHECKPOINT_PATH={begun.checkpoints}. Run that again, or empty the folder and the databases"
        )
    return True


def _refuse_stores_in_use(
    settings: Settings, dagster: Settings | None, lake: Place, checkpoints: Place
) -> None:
    for setting, store in (("LAKE_PATH", lake), ("CHECKPOINT_PATH", checkpoints)):
        if found := next(iter(store.files()), None):
            raise BackupError(
                f"{setting}={store.uri} is not empty: it has {found}. A backup is put back into empty stores alone; "
                f"set {setting} to another folder, or move that one away"
            )
    with moment(settings, DatabaseRole.OWNER) as connection:
        _refuse_rows(settings, "POSTGRES_DB", filled_table(connection, METADATA.tables))
    if dagster:
        with moment(dagster) as connection:
            _refuse_rows(dagster, "DAGSTER_POSTGRES_DB", filled_table(connection, HISTORY))


def _refuse_rows(settings: Settings, setting: str, table: str | None) -> None:
    if table is not None:
        raise BackupError(
            f"{setting}={settings.postgres_db} is not empty: its table {table} has rows. A backup is put back into "
            f"empty stores alone; make another database (`createdb`) and set {setting} to it"
        )


def _refuse_owner(settings: Settings) -> None:
    if process := owner(settings) or always_on(settings):
        raise BackupError(f"the streams are run by {process}; end it, and start it again after this")


def _refuse_other_dagster(backup: Backup, dagster: Settings | None) -> None:
    if backup.dagster is None:
        return
    if dagster is None:
        raise BackupError(
            f"backup {backup.name} has Dagster's database, and DAGSTER_HOME names none in PostgreSQL; set it to the "
            "folder of the dagster.yaml that does"
        )
    with moment(dagster) as connection:
        revision = revision_of(connection, REVISION)
    if revision != backup.dagster.revision:
        raise BackupError(
            f"backup {backup.name} has Dagster's tables at revision {backup.dagster.revision}, and this Dagster makes "
            f"them at {revision}; put it back with clickstream-assets {backup.product}, which made it, and upgrade then"
        )


def _say_of_topics(settings: Settings, backup: Backup, progress: Progress) -> None:
    """Say whether the topics are those that the lake has been read from: the ingest goes on in these alone."""
    try:
        ids = Topics(settings).ids()
    except TopicError as error:
        progress(f"Kafka: {error}")
        return
    known = {name: then for name, then in backup.topics.items() if then and ids.get(name)}
    others = [name for name, then in known.items() if str(ids[name]) != then]
    if others:
        progress(
            f"Kafka: {', '.join(others)} is another topic than the one that this lake was read from; the ingest "
            "refuses it. Name another topic in KAFKA_TOPIC, and run `clickstream stream --rebuild`"
        )
