"""Two engines for one DataFrame code: DuckDB in this process through SQLFrame, or Spark.

Functions in `analytics` and `recommender` take DataFrames and never ask which engine they are on: they get
`F` and `Window` from `functions_of(df)`. What an engine does differently (Arrow in and out, Delta tables,
Python functions over batches) is here, once.
"""

from clickstream_assets.engine.base import (
    BatchFunction,
    DataFrame,
    Engine,
    Part,
    SparkSession,
    functions_of,
    number_of_hex,
    text_in_json,
)
from clickstream_assets.engine.duckdb import ADDED_LATER, DuckDBEngine, EngineStorageError, as_view
from clickstream_assets.engine.spark import SparkEngine, spark_config, spark_session

__all__ = [
    "ADDED_LATER",
    "BatchFunction",
    "DataFrame",
    "DuckDBEngine",
    "Engine",
    "EngineStorageError",
    "Part",
    "SparkEngine",
    "SparkSession",
    "as_view",
    "functions_of",
    "number_of_hex",
    "spark_config",
    "spark_session",
    "text_in_json",
]
