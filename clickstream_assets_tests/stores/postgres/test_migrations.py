"""The tables in PostgreSQL: as the metadata declares them, however they came to be."""

import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.dialects import postgresql
from sqlalchemy.pool import NullPool

from clickstream_assets.catalogue import DATE, MONEY, SERVED_TABLES, SESSIONS, STRING, STRINGS, Column, Index
from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect
from clickstream_assets.stores.postgres.metadata import METADATA, metadata_of, sql_type
from clickstream_assets.stores.postgres.migrate import (
    ADVISORY_LOCK,
    MIGRATIONS,
    migrate,
    newest_revision,
    remake,
    write_migration,
)
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets_tests.api.conftest import clients_of
from clickstream_assets_tests.databases import fresh_database, query, with_settings
from clickstream_assets_tests.deploy.containers import wait_until
from clickstream_assets_tests.faults.account import compare_tables
from clickstream_assets_tests.faults.plugin import Fault
from clickstream_assets_tests.stores.postgres.rows import session, sessions

VERSION = "clickstream_schema_version"
# What readers of older tables of these names select by position.
FIRST_COLUMNS = {
    "clickstream_sessions": ["session_id", "total_events"],
    "user_segments": ["id", "report_date", "user_id", "segment", "created_at"],
    "product_recommendations": ["user_id", "product_id", "confidence_score"],
    "flash_sale_alerts": [
        *("id", "window_start", "window_end", "product_id", "views", "purchases", "detected_at")
    ],
    "daily_summary": [
        *("id", "report_date", "total_events", "buyer_count", "window_shopper_count", "buyer_rate"),
        "generated_at",
    ],
    "product_performance": ["id", "report_date", "product_id", "view_count", "rank", "created_at"],
    "category_conversion": [
        *("id", "report_date", "category", "views", "purchases", "conversion_rate", "created_at")
    ],
}
# Columns of served tables that the lake's tables do not have.
EXTRA_COLUMNS = {
    "flash_sale_alerts": {"id", "detected_at"},
    "user_segments": {"id", "created_at"},
    "product_performance": {"id", "created_at"},
    "category_conversion": {"id", "created_at"},
    "daily_summary": {"id", "generated_at"},
    "product_recommendations": {"published_at"},
    "person_predictions": {"published_at"},
    "next_product_models": {"published_at"},
    "published_models": {"published_at"},
    "experiment_results": {"published_at"},
    "served_models": {"served_since"},
}


def columns(settings: Settings, table: str) -> list[object]:
    rows = query(
        settings,
        "SELECT attname FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    return [name for (name,) in rows]


def shape(settings: Settings) -> dict[str, set[tuple[object, ...]]]:
    """Return all that PostgreSQL knows of the tables but the order of columns, as a new one is always the last."""
    ours = f"relnamespace = 'public'::regnamespace AND relname <> '{VERSION}'"
    statements = {
        "columns": "SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, "
        "pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
        "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
        f"WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND {ours}",
        "constraints": "SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint "
        f"JOIN pg_class ON pg_class.oid = conrelid WHERE {ours}",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes "
        f"WHERE schemaname = 'public' AND tablename <> '{VERSION}'",
    }
    return {part: set(query(settings, statement)) for part, statement in statements.items()}


def made_of(settings: Settings, metadata: sa.MetaData) -> dict[str, set[tuple[object, ...]]]:
    """The shape of a database that the metadata itself makes."""
    with fresh_database(settings, migrated=False) as database:
        with engine_of(database).begin() as connection:
            metadata.create_all(connection)
        return shape(database)


def engine_of(settings: Settings) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg://", creator=lambda: connect(settings), poolclass=NullPool)


@pytest.fixture(scope="module")
def settings(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield own


def test_the_migrations_make_the_tables_that_the_metadata_declares(settings: Settings):
    made, declared = shape(settings), made_of(settings, METADATA)
    assert all(made.values())
    assert made == declared


def test_older_readers_find_their_columns_by_position(settings: Settings):
    assert {table: columns(settings, table)[: len(first)] for table, first in FIRST_COLUMNS.items()} == (
        FIRST_COLUMNS
    )


def test_a_served_table_has_the_columns_and_the_key_of_the_lakes():
    for table in SERVED_TABLES:
        made = METADATA.tables[table.served_name]
        extra = EXTRA_COLUMNS.get(table.served_name, set())
        assert set(made.columns.keys()) == {*table.column_names, *extra}
        assert {name: made.c[name].nullable for name in table.column_names} == {
            column.name: column.nullable for column in table.columns
        }
        unique = [
            tuple(part.columns.keys())
            for part in made.constraints
            if isinstance(part, sa.UniqueConstraint | sa.PrimaryKeyConstraint)
        ]
        assert table.key in unique


@pytest.mark.parametrize(
    ("arrow", "expected"),
    [
        (STRING, "TEXT"),
        (STRINGS, "TEXT[]"),
        (MONEY, "NUMERIC(18, 4)"),
        (DATE, "DATE"),
        (pa.timestamp("us", tz="UTC"), "TIMESTAMP WITH TIME ZONE"),
        (pa.int64(), "BIGINT"),
        (pa.int32(), "INTEGER"),
        (pa.float64(), "DOUBLE PRECISION"),
        (pa.bool_(), "BOOLEAN"),
    ],
    ids=str,
)
def test_a_type_of_arrow_has_one_in_postgresql(arrow: pa.DataType, expected: str):
    assert sql_type(arrow).compile(dialect=postgresql.dialect()) == expected


def test_segments_accept_a_writer_who_knows_only_the_older_columns(settings: Settings):
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO user_segments (report_date, user_id, segment) VALUES ('2024-05-31', 'u1', 'buyer') "
            "ON CONFLICT (report_date, user_id) DO UPDATE SET segment = excluded.segment"
        )
    rows = query(settings, "SELECT id, segment, created_at IS NOT NULL, events FROM user_segments")
    assert rows == [(1, "buyer", True, 0)]


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A copy of the migrations, to write another into."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


def test_a_column_of_the_catalogue_gets_a_migration_that_works(postgres: Settings, migrations: Path):
    assert SESSIONS.served is not None
    extended = replace(
        SESSIONS,
        columns=(
            *SESSIONS.columns,
            Column("device", STRING, "phone or computer", nullable=True, filter=True),
        ),
        served=replace(
            SESSIONS.served, indexes=(*SESSIONS.served.indexes, Index(("device", "session_date")))
        ),
    )
    metadata = metadata_of([extended, *(table for table in SERVED_TABLES if table is not SESSIONS)])

    count = len([*migrations.glob("versions/r*.py")])
    newest, following = f"{count:04}", f"{count + 1:04}"

    path = write_migration(postgres, "Devices of sessions", metadata, migrations)

    assert path == migrations / "versions" / f"r{following}_devices_of_sessions.py"
    with fresh_database(postgres) as database:
        before = shape(database)
        done = migrate(database, migrations=migrations)
        assert done == (newest, following, [f"{following} Devices of sessions"])
        assert shape(database) == made_of(postgres, metadata)
        assert columns(database, "clickstream_sessions")[-1] == "device"

        config = Config()
        config.set_main_option("script_location", str(migrations))
        with engine_of(database).begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, newest)
        assert shape(database) == before


ANOTHER = '''"""Another column."""

from alembic import op
import sqlalchemy as sa

revision = "{following}"
down_revision = "{newest}"


def upgrade() -> None:
    op.add_column("clickstream_sessions", sa.Column("device", sa.Text()))


def downgrade() -> None:
    op.drop_column("clickstream_sessions", "device")
'''


@pytest.fixture
def following(migrations: Path) -> str:
    """Revision of a migration more, which changes the table of sessions."""
    newest = newest_revision()
    following = f"{int(newest) + 1:04}"
    path = migrations / "versions" / f"r{following}_another_column.py"
    path.write_text(ANOTHER.format(following=following, newest=newest))
    return following


def test_a_migration_that_gets_no_lock_names_who_has_it_and_changes_nothing(
    postgres: Settings, migrations: Path, following: str
):
    with fresh_database(with_settings(postgres, migration_lock_seconds=0.2)) as database:
        with connect(database) as reader:
            reader.execute("SET application_name TO 'a long report'")
            reader.execute("SELECT * FROM clickstream_sessions")
            pid = reader.info.backend_pid
            with pytest.raises(PostgresError) as caught:
                migrate(database, migrations=migrations)
            assert "MIGRATION_LOCK_SECONDS=0.2" in str(caught.value)
            assert (
                f"clickstream_sessions is held by process {pid} (a long report, idle in transaction for "
                in str(caught.value)
            )
            assert "run `clickstream prepare` again" in str(caught.value)
            assert caught.value.problem is PostgresProblem.BUSY
            # Who comes meanwhile does not wait behind it.
            assert query(database, "SELECT count(*) FROM clickstream_sessions") == [(0,)]
            assert "device" not in columns(database, "clickstream_sessions")
        done = migrate(database, migrations=migrations)
        assert (done.revision, done.applied) == (following, [f"{following} Another column"])
        assert columns(database, "clickstream_sessions")[-1] == "device"


@pytest.mark.fault("migrate_under_load")
def test_a_migration_under_load_keeps_nobody_from_reading_and_loses_no_row(
    postgres: Settings, elasticsearch: Settings, migrations: Path, following: str, fault: Fault
):
    with fresh_database(
        with_settings(postgres, elasticsearch_url=elasticsearch.elasticsearch_url)
    ) as settings:
        stop = threading.Event()
        statuses: Counter[int] = Counter()
        published: list[str] = []

        def read() -> None:
            for client in clients_of(settings):
                while not stop.is_set():
                    statuses[client.get("/sessions?limit=5").status_code] += 1

        def write() -> None:
            while not stop.is_set():
                names = [*published, f"s{len(published)}"]
                with publication(settings) as transaction:
                    transaction.publish(SESSIONS, sessions(*map(session, names)))
                published[:] = names

        with ThreadPoolExecutor() as pool:
            working = [pool.submit(work) for work in (read, read, write)]
            wait_until(lambda: len(published) > 5 and statuses[200] > 20)
            done = migrate(settings, migrations=migrations)
            after = len(published)
            wait_until(lambda: len(published) > after + 5)
            stop.set()
            for each in working:
                each.result()
        assert done.applied == [f"{following} Another column"]
        assert set(statuses) == {200}
        fault.saw(f"{statuses.total():,} answers, all of them 200; migrated: {done.applied[0]}")
        fault.stayed_healthy()
        names = "SELECT session_id FROM clickstream_sessions"
        there = [{"session_id": name} for (name,) in query(settings, names)]
        expected = [{"session_id": name} for name in published]
        fault.settle(compare_tables(len(published), {"sessions": expected}, {"sessions": there}))


def test_a_migration_waits_for_another_one_longer_than_for_a_table(postgres: Settings):
    with (
        fresh_database(with_settings(postgres, migration_lock_seconds=0.1), migrated=False) as empty,
        ThreadPoolExecutor() as migrators,
        connect(empty) as other,
    ):
        other.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        waiting = migrators.submit(migrate, empty)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1)
        other.rollback()
        assert waiting.result().revision == newest_revision()


def test_a_database_without_rows_gets_the_tables_of_an_older_revision(
    postgres: Settings, migrations: Path, following: str
):
    with fresh_database(postgres, migrated=False) as database:
        migrate(database, migrations=migrations)
        assert "device" in columns(database, "clickstream_sessions")
        remake(database, newest_revision(), migrations)
        assert "device" not in columns(database, "clickstream_sessions")
        assert migrate(database, migrations=migrations).before == newest_revision()


def test_without_a_change_no_migration_is_written(postgres: Settings, migrations: Path):
    before = sorted(migrations.rglob("*.py"))
    assert write_migration(postgres, "Nothing", migrations=migrations) is None
    assert sorted(migrations.rglob("*.py")) == before
    left = query(postgres, "SELECT datname FROM pg_database WHERE datname LIKE 'clickstream_migration%'")
    assert left == []


def test_tables_of_a_revision_that_is_not_known_are_left_alone(postgres: Settings):
    with fresh_database(postgres) as newer:
        with connect(newer) as connection:
            connection.execute("UPDATE clickstream_schema_version SET version_num = '9999'")
        with pytest.raises(PostgresError, match=r"'9999'.*POSTGRES_DB") as caught:
            migrate(newer)
        assert caught.value.problem is PostgresProblem.OTHER_VERSION


def test_migrating_again_changes_nothing(settings: Settings):
    objects = (
        "SELECT oid, relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    )
    before = query(settings, objects)
    again = migrate(settings)
    assert (again.before, again.applied) == (again.revision, [])
    assert query(settings, objects) == before


def test_two_migrations_at_once_wait_for_each_other(postgres: Settings):
    with fresh_database(postgres, migrated=False) as empty:
        with ThreadPoolExecutor() as migrators:
            outcomes = list(migrators.map(migrate, [empty] * 4))
        assert {outcome.revision for outcome in outcomes} == {migrate(empty).revision}
        assert sorted(bool(outcome.applied) for outcome in outcomes) == [False, False, False, True]
        assert set(columns(empty, "popular_products")) >= {"rank", "product_id"}


def test_table_that_is_not_ours_is_left_alone_and_named(postgres: Settings):
    with fresh_database(postgres, migrated=False) as taken:
        with connect(taken) as connection:
            connection.execute("CREATE TABLE user_segments (theirs text)")
        with pytest.raises(PostgresError, match=r'"user_segments" already exists.*POSTGRES_DB') as caught:
            migrate(taken)
        assert caught.value.problem is PostgresProblem.TABLE_IN_THE_WAY
        assert columns(taken, "user_segments") == ["theirs"]
        assert query(taken, "SELECT to_regclass('clickstream_sessions')") == [(None,)]
