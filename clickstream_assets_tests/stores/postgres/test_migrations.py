import threading

import pytest

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import PostgresError, Problem, connect
from clickstream_assets.stores.postgres.migrate import migrate
from clickstream_assets.stores.postgres.tables import SERVED_TABLES, ServedTable, postgres_type
from clickstream_assets_tests.databases import fresh_database, query

EXTRA_COLUMNS = {
    "flash_sale_alerts": {"id": ("bigint", False), "detected_at": ("timestamp with time zone", False)},
    "user_segments": {"id": ("bigint", False), "created_at": ("timestamp with time zone", False)},
    "product_performance": {"id": ("bigint", False), "created_at": ("timestamp with time zone", False)},
    "category_conversion": {"id": ("bigint", False), "created_at": ("timestamp with time zone", False)},
    "daily_summary": {"id": ("bigint", False), "generated_at": ("timestamp with time zone", False)},
    "product_recommendations": {"published_at": ("timestamp with time zone", False)},
    "published_models": {"published_at": ("timestamp with time zone", False)},
    "served_models": {"served_since": ("timestamp with time zone", False)},
}


def columns(settings: Settings, table: str) -> dict[object, tuple[object, object]]:
    rows = query(
        settings,
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    return {name: (kind, nullable) for name, kind, nullable in rows}


@pytest.fixture(scope="module")
def settings(postgres: Settings):
    with fresh_database(postgres) as own:
        yield own


@pytest.mark.parametrize("table", SERVED_TABLES, ids=lambda table: table.name)
def test_table_has_the_columns_of_its_schema(settings: Settings, table: ServedTable) -> None:
    expected = {c.name: (postgres_type(c.type), c.nullable) for c in table.schema.columns}
    assert columns(settings, table.name) == expected | EXTRA_COLUMNS.get(table.name, {})


@pytest.mark.parametrize("table", SERVED_TABLES, ids=lambda table: table.name)
def test_key_is_unique(settings: Settings, table: ServedTable) -> None:
    keys = query(
        settings,
        "SELECT array_agg(attname::text ORDER BY attname) FROM pg_index "
        "JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
        f"WHERE indrelid = '{table.name}'::regclass AND indisunique GROUP BY indexrelid",
    )
    assert (sorted(table.schema.key),) in keys


def test_sessions_start_with_the_columns_that_are_read_by_position(settings: Settings) -> None:
    assert list(columns(settings, "clickstream_sessions"))[:2] == ["session_id", "total_events"]


def test_segments_accept_a_writer_who_knows_only_the_older_columns(settings: Settings) -> None:
    with connect(settings) as connection:
        connection.execute(
            "INSERT INTO user_segments (report_date, user_id, segment) VALUES ('2024-05-31', 'u1', 'buyer') "
            "ON CONFLICT (report_date, user_id) DO UPDATE SET segment = excluded.segment"
        )
    rows = query(settings, "SELECT id, segment, created_at IS NOT NULL, events FROM user_segments")
    assert rows == [(1, "buyer", True, 0)]


def test_those_who_are_served_are_known_after_the_upgrade(postgres: Settings) -> None:
    with fresh_database(postgres, migrated=False) as older:
        migrate(older, "0001")
        with connect(older) as connection:
            connection.execute(
                "INSERT INTO product_recommendations SELECT user_id, product_id, 1, 1, 'als', 'why', reason, 'm2' FROM "
                "(VALUES ('ann', 'p1', 'p9'), ('ann', 'p2', 'p8'), ('ann', 'p3', 'p9'), ('bob', 'p1', NULL)) "
                "AS rows (user_id, product_id, reason)"
            )
            connection.execute(
                "INSERT INTO published_models SELECT version, 'als', 'why', 'ndcg', 1, 1, 'all', 2, 4, at::timestamptz "
                "FROM (VALUES ('m1', '2024-05-01'), ('m2', '2024-05-03'), ('m3', '2024-05-02')) AS rows (version, at)"
            )
        migrate(older)
        assert query(older, "SELECT * FROM met_products ORDER BY user_id") == [
            ("ann", ["p8", "p9"]),
            ("bob", []),
        ]
        assert query(older, "SELECT answers, model_version FROM served_models") == [("recommendations", "m2")]


def test_migrating_again_changes_nothing(settings: Settings) -> None:
    objects = (
        "SELECT oid, relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid"
    )
    before = query(settings, objects)
    assert migrate(settings) == migrate(settings)
    assert query(settings, objects) == before


def test_two_migrations_at_once_wait_for_each_other(postgres: Settings) -> None:
    with fresh_database(postgres, migrated=False) as empty:
        outcomes: list[object] = []

        def run() -> None:
            try:
                outcomes.append(migrate(empty))
            except BaseException as error:
                outcomes.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [migrate(empty)] * 4
        assert set(columns(empty, "popular_products")) >= {"rank", "product_id"}


def test_table_that_is_not_ours_is_left_alone_and_named(postgres: Settings) -> None:
    with fresh_database(postgres, migrated=False) as taken:
        with connect(taken) as connection:
            connection.execute("CREATE TABLE user_segments (theirs text)")
        with pytest.raises(PostgresError, match=r'"user_segments" already exists.*POSTGRES_DB') as caught:
            migrate(taken)
        assert caught.value.problem is Problem.TABLE_IN_THE_WAY
        assert list(columns(taken, "user_segments")) == ["theirs"]
        assert query(taken, "SELECT to_regclass('clickstream_sessions')") == [(None,)]
