"""Behaviour that is the same on every engine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clickstream_assets.defs.resources import ComputeResource, SettingsResource
from clickstream_assets.engine import DuckDBEngine, Engine, as_view, functions_of, spark_config
from clickstream_assets.settings import EngineName, Settings

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("small", pa.int32()),
        ("text", pa.string()),
        ("data", pa.binary()),
        ("flag", pa.bool_()),
        ("ratio", pa.float64()),
        ("price", pa.decimal128(18, 4)),
        ("day", pa.date32()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("vector", pa.list_(pa.float32())),
        ("pair", pa.struct([("name", pa.string()), ("count", pa.int64())])),
    ]
)
ROWS = [
    {
        "id": 1,
        "small": -(2**31),
        "text": "žluťoučký \U0001f600",
        "data": b"\x00\xff",
        "flag": True,
        "ratio": 0.1,
        "price": Decimal("12345678901234.5678"),
        "day": date(1969, 12, 31),
        "time": datetime(2024, 3, 31, 1, 30, 0, 123456, tzinfo=UTC),
        "vector": [0.5, -1.25],
        "pair": {"name": "a", "count": 2**62},
    },
    dict.fromkeys(SCHEMA.names) | {"id": 2},
    dict.fromkeys(SCHEMA.names)
    | {"id": 3, "text": "", "data": b"", "vector": [], "price": Decimal("0.0000")},
]
TABLE = pa.Table.from_pylist(ROWS, SCHEMA)


def rows(data: pa.Table) -> list[dict[str, object]]:
    return data.cast(SCHEMA).sort_by("id").to_pylist()


def test_values_and_types_survive_the_way_in_and_out(engine: Engine):
    data = engine.to_arrow(engine.from_arrow(TABLE))
    # Spark says UTC in its own words, and neither engine keeps the bit width of a list's offsets.
    assert [str(field.type) for field in data.schema if field.name in ("price", "day", "small", "id")] == [
        "int64",
        "int32",
        "decimal128(18, 4)",
        "date32[day]",
    ]
    assert data.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert rows(data) == ROWS


@pytest.mark.parametrize("count", [0, 1, 50_000])
def test_batches_have_all_rows_with_their_types(engine: Engine, count: int):
    numbers = engine.from_arrow(pa.table({"n": pa.array(range(count), pa.int64())}))
    F, _ = functions_of(numbers)
    made = numbers.select(
        "n",
        F.col("n").cast("decimal(18,4)").alias("money"),
        F.timestamp_seconds("n").alias("moment"),
        F.when(F.col("n") % 3 > 0, F.col("n").cast("string")).alias("text"),
    )
    batches = list(engine.to_batches(made))
    whole = engine.to_arrow(made).sort_by("n")
    assert pa.Table.from_batches(batches, whole.schema).sort_by("n") == whole
    assert sum(batch.num_rows for batch in batches) == count


def test_an_empty_table_keeps_its_columns(engine: Engine):
    data = engine.to_arrow(engine.from_arrow(SCHEMA.empty_table()))
    assert data.num_rows == 0
    assert data.schema.names == SCHEMA.names


@pytest.mark.parametrize("sizes", [[0, 2, 0, 3], [3, 0, 0], [1, 0, 1], [0]])
def test_a_table_with_empty_chunks_keeps_all_its_rows(engine: Engine, sizes):
    schema = pa.schema([("n", pa.int64())])
    numbers = iter(range(sum(sizes)))
    batches = [pa.record_batch([[next(numbers) for _ in range(size)]], schema) for size in sizes]
    data = pa.Table.from_batches(batches, schema)
    assert data["n"].num_chunks == len(sizes)
    assert sorted(engine.to_arrow(engine.from_arrow(data))["n"].to_pylist()) == list(range(sum(sizes)))


def twice(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each row, and its negative; nothing for an empty batch."""
    for batch in batches:
        if batch.num_rows:
            n = batch.column("n")
            for part in (n, pc.negate(n)):
                yield pa.RecordBatch.from_arrays([part, part.cast(pa.string())], names=["n", "text"])


# DuckDB gives the last to processes; Spark has several batches of it.
@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 70_000])
def test_a_function_maps_all_batches(engine: Engine, count):
    numbers = engine.from_arrow(pa.table({"n": pa.array(range(1, count + 1), pa.int64())}))
    mapped = engine.map_arrow(numbers, twice, pa.schema([("n", pa.int64()), ("text", pa.string())]))
    data = engine.to_arrow(mapped).sort_by("n")
    assert data["n"].to_pylist() == [*range(-count, 0), *range(1, count + 1)]
    assert data["text"].to_pylist() == [str(n) for n in data["n"].to_pylist()]


@pytest.mark.parametrize("count", [1, pytest.param(70_000, marks=pytest.mark.long_on_spark)])
def test_other_work_is_done_while_a_function_maps_batches(engine: Engine, count):
    numbers = engine.from_arrow(pa.table({"n": pa.array(range(1, count + 1), pa.int64())}))
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    results = [engine.start_map_arrow(numbers, twice, schema) for _ in range(2)]
    assert engine.to_arrow(engine.from_arrow(TABLE)).num_rows == TABLE.num_rows
    expected = [*range(-count, 0), *range(1, count + 1)]
    for result in results:
        assert engine.to_arrow(result()).sort_by("n")["n"].to_pylist() == expected


def count_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """How many rows each batch has."""
    for batch in batches:
        yield pa.record_batch({"n": pa.array([batch.num_rows], pa.int64())})


def test_workers_get_as_many_batches_each_of_one_size(duckdb_engine: DuckDBEngine):
    count = 70_001
    numbers = duckdb_engine.from_arrow(pa.table({"n": pa.array(range(count), pa.int64())}))
    mapped = duckdb_engine.map_arrow(numbers, count_rows, pa.schema([("n", pa.int64())]))
    sizes = duckdb_engine.to_arrow(mapped)["n"].to_pylist()
    assert sum(sizes) == count
    # 16,384 rows at most, so five batches at least; no more workers than these.
    workers = min(duckdb_engine.processes, 5)
    assert len(sizes) == workers * -(-5 // workers)
    assert max(sizes) - min(sizes) < len(sizes)


def refuse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Fail at the last of 70,000 numbers, and at one that is alone."""
    for batch in batches:
        if batch.column("n")[-1].as_py() in (1, 70_000):
            raise ValueError("no such number")
        yield batch


@pytest.mark.parametrize("count", [1, pytest.param(70_000, marks=pytest.mark.long_on_spark)])
def test_a_function_that_fails_meanwhile_fails_where_its_result_is_asked_for(engine: Engine, count):
    numbers = engine.from_arrow(pa.table({"n": pa.array(range(1, count + 1), pa.int64())}))
    result = engine.start_map_arrow(numbers, refuse, pa.schema([("n", pa.int64())]))
    assert engine.to_arrow(engine.from_arrow(TABLE)).num_rows == TABLE.num_rows
    with pytest.raises(Exception, match="no such number"):
        engine.to_arrow(result())


def test_what_is_persisted_is_computed_once_and_can_be_used_until_it_is_released(engine: Engine):
    df = engine.from_arrow(TABLE)
    F, _ = functions_of(df)
    # A random number is another one each time it is computed.
    persisted = engine.persist(df.select("id", F.rand().alias("number")))
    first, second = (engine.to_arrow(persisted).sort_by("id") for _ in range(2))
    assert first == second
    assert engine.to_arrow(persisted.where(F.col("id") > 1)).num_rows == 2
    engine.release(persisted)


def test_a_view_has_the_rows_of_what_it_names(engine: Engine):
    df = engine.from_arrow(TABLE)
    F, Window = functions_of(df)
    number = F.row_number().over(Window.orderBy("id"))
    view = as_view(as_view(df.where(F.col("id") > 1)).withColumn("number", number))
    joined = as_view(view.join(df.select("id", F.col("small").alias("other")), on=["id"], how="inner"))
    found = engine.to_arrow(joined.select("id", "number", "price")).sort_by("id").to_pylist()
    assert found == [
        {"id": 2, "number": 1, "price": None},
        {"id": 3, "number": 2, "price": Decimal("0.0000")},
    ]


def test_a_view_has_the_types_of_what_it_names(engine: Engine):
    df = engine.from_arrow(TABLE)
    view = as_view(df)
    assert view.schema == df.schema
    assert rows(engine.to_arrow(as_view(view.select(*SCHEMA.names)))) == ROWS


def test_views_on_views_are_what_they_are_of_and_whatever_is_asked_of_them_is_answered(engine: Engine):
    view = engine.from_arrow(pa.table({"n": [1, 2, 3], "text": ["a", "view_1", "a"]}))
    F, _ = functions_of(view)
    for number in range(8):
        step = as_view(view.select("text", (F.col("n") + number).alias("n")))
        texts = as_view(step.groupBy("text").agg(F.max("n").alias("most")))
        view = as_view(step.join(texts, on="text").select("text", "n"))
    assert view.count() == 3
    assert view.columns == ["text", "n"]
    assert engine.to_arrow(view.where(F.col("text") == "view_1")).to_pylist() == [{"text": "view_1", "n": 30}]
    total = view.unionByName(view).agg(F.sum("n").alias("n"))
    assert engine.to_arrow(total).to_pylist() == [{"n": 2 * (29 + 30 + 31)}]


def test_released_data_is_no_longer_held(duckdb_engine: DuckDBEngine):
    before = pa.total_allocated_bytes()
    df = duckdb_engine.from_arrow(pa.table({"n": pa.array(range(1_000_000), pa.int64())}))
    assert pa.total_allocated_bytes() >= before + 8_000_000
    duckdb_engine.release(df)
    del df
    assert pa.total_allocated_bytes() < before + 8_000_000


SPILLED = """
from clickstream_assets.catalogue.table import LONG, STRING, Column, Table
from clickstream_assets.engine import DuckDBEngine, EngineStorageError, functions_of
from clickstream_assets.settings import load_settings
from clickstream_assets.stores.lake import Lake
import pyarrow as pa

settings = load_settings()
engine = DuckDBEngine(settings)
lake = Lake(settings.lake, engine)
table = Table("texts", "a text", (Column("text", STRING, "The text"), Column("n", LONG, "A number")), key=("text",))
few = pa.table({"text": ["a"], "n": pa.array([1], pa.int64())})
lake.replace(table, engine.from_arrow(few))
df = engine.from_arrow(pa.table({"n": pa.array(range(3_000_000), pa.int64())}))
F, _ = functions_of(df)
many = df.groupBy(F.sha2(F.col("n").cast("string"), 256).alias("text")).agg(F.sum("n").alias("n"))
for compute in (engine.to_arrow, lambda df: lake.replace(table, df)):
    try:
        compute(many)
    except EngineStorageError as error:
        print(error)
print("Left:", engine.to_arrow(lake.read(table)).to_pylist())
"""


@pytest.mark.slow
def test_a_query_that_has_nowhere_to_spill_to_names_the_settings(tmp_path: Path):
    # A file where the folder of what is spilled would be.
    (tmp_path / "spill").write_text("")
    environment = os.environ | {"CLICKSTREAM_HOME": str(tmp_path), "DUCKDB_MEMORY_LIMIT": "60MB"}
    # In a process of its own: the limit is the connection's, which all of a process share.
    done = subprocess.run(
        [sys.executable, "-c", SPILLED], env=environment, capture_output=True, text=True, check=True
    )
    *errors, left = done.stdout.splitlines()
    assert len(errors) == 2
    for error in errors:
        assert error.startswith("DUCKDB_MEMORY_LIMIT=60MB: DuckDB could not go on: ")
        assert f"It spills to {tmp_path}/spill" in error
    assert left == "Left: [{'text': 'a', 'n': 1}]"


SPILLED_BEFORE = """
from clickstream_assets.engine import DuckDBEngine, functions_of
from clickstream_assets.settings import load_settings
import pyarrow as pa

for _ in range(2):
    engine = DuckDBEngine(load_settings())
    df = engine.from_arrow(pa.table({"n": pa.array(range(1_000_000), pa.int64())}))
    F, Window = functions_of(df)
    texts = df.select(F.sha2(F.col("n").cast("string"), 256).alias("text"))
    ranked = texts.select("text", F.row_number().over(Window.orderBy("text")).alias("rank"))
    ranked = ranked.where(F.col("rank") % 500_000 == 0)
    print(engine.to_arrow(ranked).num_rows, (load_settings().clickstream_home / "spill").is_dir())
"""


@pytest.mark.long
def test_an_engine_computes_after_another_of_its_process_has_spilled(tmp_path: Path):
    environment = os.environ | {"CLICKSTREAM_HOME": str(tmp_path), "DUCKDB_MEMORY_LIMIT": "60MB"}
    done = subprocess.run(
        [sys.executable, "-c", SPILLED_BEFORE], env=environment, capture_output=True, text=True, check=False
    )
    # DuckDB shows the progress of what takes long.
    assert (done.returncode, done.stdout.count("2 True\n")) == (0, 2), done.stderr


def test_names_and_texts_with_quotes_are_only_names_and_texts(engine: Engine):
    data = pa.table({"group": ["it's", 'a "b"'], "order": [1, 2]})
    df = engine.from_arrow(data)
    F, _ = functions_of(df)
    found = engine.to_arrow(df.where(F.col("group") == "it's").select("group", "order"))
    assert found.to_pylist() == [{"group": "it's", "order": 1}]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, EngineName.DUCKDB),
        ({"SPARK_MASTER": "local[2]"}, EngineName.SPARK),
        ({"SPARK_MASTER": "local[2]", "COMPUTE_ENGINE": "duckdb"}, EngineName.DUCKDB),
    ],
)
def test_the_settings_choose_the_engine(monkeypatch: pytest.MonkeyPatch, environment, name):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert ComputeResource(settings=SettingsResource()).engine().name is name


def test_a_spark_that_we_start_has_the_jars_and_stays_on_loopback():
    config = spark_config(Settings(_env_file=None, spark_driver_memory="3g"), ["/jars/a.jar", "/jars/b.jar"])
    assert config["spark.jars"] == "/jars/a.jar,/jars/b.jar"
    assert config["spark.driver.memory"] == "3g"
    assert config["spark.master"] == "local[*]"
    assert config["spark.sql.session.timeZone"] == "UTC"
    assert config["spark.driver.bindAddress"] == "127.0.0.1"
    assert "spark.jars" not in spark_config(Settings(_env_file=None))


@pytest.mark.parametrize("variable", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"])
def test_a_spark_that_we_start_names_no_second_collector(monkeypatch: pytest.MonkeyPatch, variable):
    def options() -> str:
        return spark_config(Settings(_env_file=None))["spark.driver.extraJavaOptions"]

    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    assert "-XX:+UseParallelGC" in options()
    monkeypatch.setenv(variable, "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    assert "GC" not in options()
