"""Streams on the shared Spark session and the shared servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from clickstream_assets.engine import SparkEngine
from clickstream_assets.settings import Settings
from clickstream_assets_tests.streaming.streams import Shop, new_shop


@pytest.fixture
def shop(servers: Settings, spark_engine: SparkEngine, tmp_path: Path) -> Iterator[Shop]:
    """A stream of its own."""
    with new_shop(servers, tmp_path, spark_engine.session) as own:
        yield own
