import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from clickstream_assets.catalogue import (
    POPULAR_PRODUCTS,
    PRODUCT_RECOMMENDATIONS,
    PROFILING_REFUSALS,
    SESSIONS,
    USER_SEGMENTS,
    Table,
)
from clickstream_assets.settings import Settings
from clickstream_assets.stores.kafka.partition import TopicPartition
from clickstream_assets.stores.postgres import erasures
from clickstream_assets.stores.postgres.connection import PostgresError, PostgresProblem, connect
from clickstream_assets.stores.postgres.publishing import (
    Among,
    Keyed,
    Part,
    Publication,
    PublicationError,
    Published,
    Rows,
    Scope,
    publication,
)
from clickstream_assets_tests.background import in_background
from clickstream_assets_tests.databases import fresh_database, hanging, query
from clickstream_assets_tests.stores.postgres.rows import (
    DAY,
    popular,
    recommendations,
    segments,
    session,
    sessions,
    table,
)


@pytest.fixture(scope="module")
def migrated(postgres: Settings) -> Iterator[Settings]:
    with fresh_database(postgres) as own:
        yield own


@pytest.fixture
def settings(migrated: Settings) -> Settings:
    with connect(migrated) as connection:
        connection.execute(
            "TRUNCATE clickstream_sessions, user_segments, product_recommendations, popular_products, erasures, "
            "profiling_refusals"
        )
    return migrated


def publish(settings: Settings, rows: Rows, scope: Part | None = None, table: Table = SESSIONS) -> Published:
    with publication(settings) as transaction:
        return transaction.publish(table, rows, scope)


def session_ids(settings: Settings) -> list[object]:
    return [row[0] for row in query(settings, "SELECT session_id FROM clickstream_sessions ORDER BY 1")]


def test_publication_inserts_updates_deletes_and_leaves_the_rest(settings: Settings) -> None:
    assert publish(settings, sessions(session("a"), session("b"), session("c"))) == Published(3, 3, 0, 0)

    result = publish(settings, sessions(session("b"), session("c", total_events=7), session("d")))

    assert result == Published(rows=3, inserted=1, updated=1, deleted=1)
    assert query(
        settings, "SELECT session_id, total_events FROM clickstream_sessions ORDER BY session_id"
    ) == [("b", 3), ("c", 7), ("d", 3)]


def test_repeating_a_publication_does_not_write_a_row(settings: Settings) -> None:
    rows = recommendations(["u1", "u2"], ["p1", "p2"])
    publish(settings, rows, table=PRODUCT_RECOMMENDATIONS)
    versions = (
        "SELECT user_id, product_id, xmin::text, published_at FROM product_recommendations ORDER BY 1, 2"
    )
    before = query(settings, versions)

    assert publish(settings, rows, table=PRODUCT_RECOMMENDATIONS) == Published(4, 0, 0, 0)
    assert query(settings, versions) == before


def test_a_changed_row_gets_a_new_stamp(settings: Settings) -> None:
    publish(settings, recommendations(["u1"], ["p1", "p2"]), table=PRODUCT_RECOMMENDATIONS)
    stamp = "SELECT published_at FROM product_recommendations WHERE product_id = 'p1'"
    [(first,)] = query(settings, stamp)
    publish(settings, recommendations(["u1"], ["p2", "p1"]), table=PRODUCT_RECOMMENDATIONS)
    [(second,)] = query(settings, stamp)
    assert isinstance(first, datetime)
    assert isinstance(second, datetime)
    assert second > first


def test_a_list_that_a_later_model_makes_alike_is_not_written(settings: Settings) -> None:
    publish(settings, recommendations(["u1", "u2", "u3"], ["p1", "p2"], "m1"), table=PRODUCT_RECOMMENDATIONS)
    later = recommendations(["u1"], ["p1", "p2"], "m2").to_pylist()
    shorter, other = (
        recommendations(["u2"], ["p1"], "m2").to_pylist(),
        recommendations(["u3", "u4"], ["p1", "p3"], "m2").to_pylist(),
    )
    rows = pa.Table.from_pylist(
        [row | {"confidence_score": 7.0} for row in later + shorter + other],
        schema=PRODUCT_RECOMMENDATIONS.arrow,
    )

    found = publish(settings, rows, table=PRODUCT_RECOMMENDATIONS)

    # The first row of the second and third list says the same, and is of the list that the model made.
    assert found == Published(rows=7, inserted=3, updated=2, deleted=2)
    assert query(
        settings,
        "SELECT user_id, product_id, model_version, confidence_score FROM product_recommendations ORDER BY 1, rank",
    ) == [
        ("u1", "p1", "m1", 1.0),
        ("u1", "p2", "m1", 0.5),
        ("u2", "p1", "m2", 7.0),
        ("u3", "p1", "m2", 7.0),
        ("u3", "p3", "m2", 7.0),
        ("u4", "p1", "m2", 7.0),
        ("u4", "p3", "m2", 7.0),
    ]


def test_scope_replaces_its_days_and_no_others(settings: Settings) -> None:
    other = date(2024, 6, 2)
    publish(settings, sessions(session("a"), session("b"), session("x", session_date=other)))

    result = publish(settings, sessions(session("b")), Scope("session_date", DAY, date(2024, 6, 1)))

    assert result == Published(rows=1, inserted=0, updated=0, deleted=1)
    assert session_ids(settings) == ["b", "x"]


def test_rows_of_some_keys_are_replaced_and_no_others(settings: Settings) -> None:
    other = date(2024, 6, 2)
    publish(settings, sessions(*(session(name) for name in "abcd")))
    keys = pa.table({"session_id": ["a", "b", "c", "new", "never there"]})
    rows = sessions(session("b", total_events=7), session("c", session_date=other), session("new"))
    with publication(settings) as transaction:
        found = transaction.publish_by(SESSIONS, rows, Keyed("session_date", keys))
    assert found == {DAY: Published(2, 1, 1, 1), other: Published(1, 0, 1, 0)}
    assert session_ids(settings) == ["b", "c", "d", "new"]
    with pytest.raises(PublicationError, match="outside of the 5 keys"):
        publish(settings, sessions(session("d")), Keyed("session_date", keys))
    # Each has keys of its own.
    with publication(settings) as transaction:
        for name in ("b", "c"):
            gone = Keyed("session_date", pa.table({"session_id": [name]}))
            assert transaction.publish(SESSIONS, sessions(), gone) == Published(0, 0, 0, 1)


def test_days_of_a_scope_need_not_follow_each_other(settings: Settings) -> None:
    days = [DAY + timedelta(days=number) for number in range(3)]
    publish(settings, sessions(*(session(f"s{day:%d}", session_date=day) for day in days)))
    first, _, last = days
    # One goes over to another of the days.
    moved = sessions(session(f"s{first:%d}", session_date=last))
    assert publish(settings, moved, Among("session_date", (first, last))) == Published(1, 0, 1, 1)
    kept = query(settings, "SELECT session_id, session_date FROM clickstream_sessions ORDER BY session_date")
    assert kept == [(f"s{days[1]:%d}", days[1]), (f"s{first:%d}", last)]
    with pytest.raises(PublicationError, match=f"outside of session_date {first}, {last}"):
        publish(settings, sessions(session("x", session_date=days[1])), Among("session_date", (first, last)))


def test_no_rows_empty_the_scope_or_the_table(settings: Settings) -> None:
    publish(settings, sessions(session("a"), session("x", session_date=date(2024, 6, 2))))
    assert publish(settings, sessions(), Scope("session_date", DAY)).deleted == 1
    assert session_ids(settings) == ["x"]
    assert publish(settings, []).deleted == 1
    assert session_ids(settings) == []


def test_row_outside_the_scope_is_refused_before_anything_changes(settings: Settings) -> None:
    publish(settings, sessions(session("a")))
    rows = sessions(session("b"), session("late", session_date=date(2024, 6, 2)))
    with pytest.raises(
        PublicationError, match=r"session_id='late'.* outside of session_date from 2024-05-31"
    ):
        publish(settings, rows, Scope("session_date", DAY))
    assert session_ids(settings) == ["a"]


def test_key_of_a_row_outside_the_scope_is_not_taken_over(settings: Settings) -> None:
    publish(settings, sessions(session("a", session_date=date(2024, 6, 2))))
    with pytest.raises(PublicationError, match="key session_id='a' belongs to a row outside"):
        publish(settings, sessions(session("a")), Scope("session_date", DAY))
    assert query(settings, "SELECT session_date FROM clickstream_sessions") == [(date(2024, 6, 2),)]


def test_values_arrive_as_they_were_sent(settings: Settings) -> None:
    texts = [
        *("", "NULL", "\\N", "\\.", "a\n\\.\nb", 'q"uo"te', "comma,", "line\nbreak\r\n", "tab\t", " "),
        "ü🐍\u2028",
    ]
    rows = [
        session(
            f"s{number:02}",
            entry_product_id=text,
            exit_product_id=None,
            revenue=Decimal("999999999999999999999999.9999") if number % 2 else Decimal("-0.0001"),
            start_time=datetime(2024, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            is_bot=bool(number % 2),
        )
        for number, text in enumerate(texts)
    ]
    publish(settings, sessions(*rows))
    columns = "entry_product_id, exit_product_id, revenue, start_time, is_bot"
    assert query(settings, f"SELECT {columns} FROM clickstream_sessions ORDER BY session_id") == [
        tuple(row[name] for name in columns.split(", ")) for row in rows
    ]


@pytest.mark.parametrize(
    "ids",
    [None, [], ["a"], ["a", "b"], ["", "NULL", "null", 'q"uo"te', "\\", "{,}", " ", "line\nbreak", "ü🐍"]],
)
def test_lists_of_texts_arrive_as_arrays(settings: Settings, ids: list[str] | None) -> None:
    others = [session("before", client_session_ids=["x"]), session("z", client_session_ids=["y", "z"])]
    publish(settings, sessions(others[0], session("it", client_session_ids=ids), others[1]).slice(1))
    found = query(settings, "SELECT client_session_ids FROM clickstream_sessions ORDER BY session_id")
    assert found == [(ids,), (["y", "z"],)]


@pytest.mark.parametrize("score", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf"), -0.5])
def test_doubles_keep_every_bit(settings: Settings, score: float) -> None:
    rows = recommendations(["u1"], ["p1"])
    index = rows.column_names.index("confidence_score")
    rows = rows.set_column(index, rows.field(index), pa.array([score]))
    publish(settings, rows, table=PRODUCT_RECOMMENDATIONS)
    assert query(settings, "SELECT confidence_score FROM product_recommendations") == [(score,)]


def test_batches_are_streamed_in_any_column_order(settings: Settings) -> None:
    whole = sessions(*(session(f"s{number}") for number in range(10)))
    shuffled = whole.select(list(reversed(whole.column_names)))
    reader = pa.RecordBatchReader.from_batches(shuffled.schema, shuffled.to_batches(max_chunksize=3))
    assert publish(settings, reader).inserted == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (sessions(session("a"), session("a", total_events=9)), "key session_id='a' is there 2 times"),
        (sessions(session("a", user_id="nul\0byte")), r"column user_id has a NUL byte in 'nul\\x00byte'"),
        (sessions(session("a")).drop_columns(["views"]), "no column views"),
        (
            sessions(session("a")).append_column("colour", pa.array(["red"])),
            "clickstream_sessions: the table has no column colour",
        ),
        (
            sessions(session("a")).drop_columns(["views"]).append_column("views", pa.array(["many"])),
            "column views is not int64",
        ),
        (sessions(session("a", user_id=None)), "does not take a row in column user_id"),
    ],
    ids=["duplicate key", "NUL byte", "missing column", "unknown column", "wrong type", "null"],
)
def test_unusable_rows_are_refused_and_change_nothing(
    settings: Settings, rows: pa.Table, message: str
) -> None:
    publish(settings, sessions(session("old")))
    with pytest.raises(PublicationError, match=message):
        publish(settings, rows)
    assert session_ids(settings) == ["old"]


def test_segment_that_the_table_does_not_know_is_refused(settings: Settings) -> None:
    with pytest.raises(PublicationError, match="user_segments_segment_check"):
        publish(settings, segments(u1="buyer", u2="thief"), table=USER_SEGMENTS)
    assert query(settings, "SELECT count(*) FROM user_segments") == [(0,)]


def test_segments_keep_their_id_and_creation_time_when_they_change(settings: Settings) -> None:
    publish(settings, segments(u1="buyer"), table=USER_SEGMENTS)
    before = query(settings, "SELECT id, created_at FROM user_segments")
    publish(settings, segments(u1="window_shopper"), table=USER_SEGMENTS)
    assert query(settings, "SELECT id, created_at FROM user_segments") == before


def test_tables_of_one_publication_change_together_or_not_at_all(settings: Settings) -> None:
    def both(products: list[str], broken: bool) -> None:
        with publication(settings) as transaction:
            transaction.publish(PRODUCT_RECOMMENDATIONS, recommendations(["u1"], products))
            transaction.publish(POPULAR_PRODUCTS, popular(products))
            if broken:
                raise InterruptedError

    both(["p1"], broken=False)
    with pytest.raises(InterruptedError):
        both(["p2"], broken=True)
    for name in ("product_recommendations", "popular_products"):
        assert query(settings, f"SELECT product_id FROM {name}") == [("p1",)]


def test_publication_goes_on_after_a_table_that_was_refused(settings: Settings) -> None:
    with publication(settings) as transaction:
        with pytest.raises(PublicationError):
            transaction.publish(POPULAR_PRODUCTS, popular(["p1", "p1"]))
        transaction.publish(POPULAR_PRODUCTS, popular(["p2"]))
    assert query(settings, "SELECT product_id FROM popular_products") == [("p2",)]


def test_reader_never_sees_two_versions_at_once(settings: Settings) -> None:
    users = [f"u{number}" for number in range(200)]

    def publish_version(version: int) -> None:
        # The number of products changes too, so every publication inserts or deletes as well as updates.
        products = [f"p{number}" for number in range(3 + version % 3)]
        with publication(settings) as transaction:
            transaction.publish(PRODUCT_RECOMMENDATIONS, recommendations(users, products, f"m{version}"))
            transaction.publish(POPULAR_PRODUCTS, popular(products))

    publish_version(0)
    seen: list[tuple[object, ...]] = []

    def read(stop: threading.Event) -> None:
        with connect(settings, autocommit=True) as connection:
            while not stop.is_set():
                seen.extend(
                    connection.execute(
                        "SELECT min(model_version), max(model_version), count(*), "
                        "(SELECT count(*) FROM popular_products) FROM product_recommendations"
                    )
                )

    with in_background(read):
        for version in range(1, 30):
            publish_version(version)

    for first, last, rows, products in set(seen):
        assert first == last
        assert isinstance(first, str)
        assert products == 3 + int(first[1:]) % 3
        assert rows == len(users) * products
    assert len({row[0] for row in seen}) > 1


def test_publishers_of_one_table_wait_for_each_other(settings: Settings) -> None:
    def publish_all(version: str) -> None:
        users = [f"{version}{n}" for n in range(50)]
        for size in range(1, 15):
            rows = recommendations(users, [f"p{n}" for n in range(size)], version)
            publish(settings, rows, table=PRODUCT_RECOMMENDATIONS)

    with ThreadPoolExecutor() as publishers:
        list(publishers.map(publish_all, ("a", "b", "c")))

    [(_, rows)] = query(
        settings, "SELECT model_version, count(*) FROM product_recommendations GROUP BY model_version"
    )
    assert rows == 50 * 14


HANGING_PUBLISHER = """
import threading
from clickstream_assets.stores.postgres.publishing import publication
from clickstream_assets.catalogue import SESSIONS
from clickstream_assets.settings import load_settings
from clickstream_assets_tests.stores.postgres.rows import session, sessions

def batches():
    yield from sessions(*(session(f"new{n}") for n in range(50_000))).to_batches()
    print("copying", flush=True)
    threading.Event().wait()

with publication(load_settings()) as transaction:
    transaction.publish(SESSIONS, batches())
"""


def test_publisher_killed_while_copying_leaves_the_old_rows(settings: Settings) -> None:
    publish(settings, sessions(session("old")))
    with hanging(HANGING_PUBLISHER, settings, "copying"):
        assert session_ids(settings) == ["old"]
    assert session_ids(settings) == ["old"]
    assert publish(settings, sessions(session("next"))) == Published(rows=1, inserted=1, updated=0, deleted=1)


def test_missing_table_says_to_migrate(postgres: Settings) -> None:
    with (
        fresh_database(postgres, migrated=False) as empty,
        pytest.raises(PostgresError, match="run `clickstream prepare`") as caught,
    ):
        publish(empty, sessions(session("a")))
    assert caught.value.problem is PostgresProblem.TABLE_MISSING


def test_connection_that_breaks_while_publishing_is_explained(settings: Settings) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from sessions(session("new")).to_batches()
        with connect(settings, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                # Not the server's own work, such as autovacuum, which belongs to no user.
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
            )
        yield from sessions(session("newer")).to_batches()

    with pytest.raises(PostgresError, match="POSTGRES_HOST") as caught:
        publish(settings, batches())
    assert caught.value.problem is PostgresProblem.UNREACHABLE
    assert session_ids(settings) == []


def test_full_disk_is_named(settings: Settings) -> None:
    with pytest.raises(PostgresError, match="free space") as caught, publication(settings) as transaction:
        publish_on_full_disk(transaction)
    assert caught.value.problem is PostgresProblem.DISK_FULL
    assert query(settings, "SELECT count(*) FROM popular_products") == [(0,)]


def publish_on_full_disk(transaction: Publication) -> None:
    transaction.publish(POPULAR_PRODUCTS, popular(["p1"]))
    # What a full disk reports; the server raises it here on request.
    transaction._connection.execute(
        "DO $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )


def test_persons_whose_erasure_is_not_done_are_left_out(settings: Settings):
    publish(settings, sessions(session("s1", user_id="u1"), session("s2", user_id="u2")))
    number, lost = erasures.ask(settings, {"u1", "anonymous:d1"}, {"d1"})
    assert lost == {"clickstream_sessions": 1}
    assert erasures.count(settings, {"u2"}, set()) == {"clickstream_sessions": 1}
    both = sessions(session("s1", user_id="u1"), session("s2", user_id="u2"))
    assert publish(settings, both) == Published(rows=1)
    assert [each.persons for each in erasures.unfinished(settings)] == [("anonymous:d1", "u1")]
    erasures.add_to_receipt(settings, {number: {"removed_files": 3}}, is_done=True)
    erasures.forget(settings)
    assert query(settings, "SELECT persons, receipt FROM erasures") == [
        (["anonymous:d1", "u1"], {"removed_files": 3})
    ]
    query(settings, "UPDATE erasures SET asked_at = asked_at - interval '2 days' RETURNING 1")
    erasures.forget(settings)
    assert query(settings, "SELECT persons FROM erasures") == [(None,)]
    assert erasures.unfinished(settings) == []
    # Who comes back is a new person.
    assert publish(settings, both) == Published(rows=2, inserted=1)


def test_places_of_erased_records_are_kept_once(settings: Settings):
    number, _ = erasures.ask(settings, {"u1"}, set())
    place = {"topic": "events", "partition": 0, "offset": 7, "item": 1}
    for _ in range(2):
        erasures.keep_places(settings, {number: pa.Table.from_pylist([place])})
    assert erasures.all_places(settings)[number].to_pylist() == [place]
    partition = TopicPartition("events", 0)
    among = [erasures.places_among(settings, {partition: its}).num_rows for its in ((0, 6), (7, 7), (8, 9))]
    assert among == [0, 1, 0]
    (erasure,) = erasures.unfinished(settings)
    assert erasure.erased_at is not None


def refusal(user: str, agreed_on: date | None = None) -> dict[str, object]:
    return {"user_id": user, "refused": datetime(2024, 5, 30, 12, tzinfo=UTC), "agreed_on": agreed_on}


def test_who_refuses_to_be_profiled_has_no_rows_that_say_what_they_are_like(settings: Settings) -> None:
    publish(settings, segments(ann="buyer", bob="buyer", cat="buyer"), table=USER_SEGMENTS)
    publish(settings, recommendations(["ann", "bob"], ["p1"]), table=PRODUCT_RECOMMENDATIONS)
    publish(settings, sessions(session("a", user_id="ann")))
    rows = [refusal("ann"), refusal("bob", DAY), refusal("cat", DAY + timedelta(days=1))]
    with publication(settings) as transaction:
        counted, agreed_on = transaction.publish_refusals(table(PROFILING_REFUSALS, rows))
    assert (counted.inserted, agreed_on) == (3, None)
    assert query(settings, "SELECT user_id FROM user_segments") == [("bob",)]
    assert query(settings, "SELECT DISTINCT user_id FROM product_recommendations") == [("bob",)]
    # What they did is no profile.
    assert session_ids(settings) == ["a"]
    # What is published later is the same.
    assert (
        publish(
            settings, segments(ann="buyer", bob="buyer"), Scope("report_date", DAY), USER_SEGMENTS
        ).inserted
        == 0
    )
    with publication(settings) as transaction:
        _, agreed_on = transaction.publish_refusals(
            table(PROFILING_REFUSALS, [refusal("ann", DAY), *rows[1:]])
        )
    assert agreed_on == DAY
    assert (
        publish(
            settings, segments(ann="buyer", bob="buyer"), Scope("report_date", DAY), USER_SEGMENTS
        ).inserted
        == 1
    )
