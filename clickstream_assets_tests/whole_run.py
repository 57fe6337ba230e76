"""A run that ingests, refreshes and trains on what the environment names, in a process: it can have one Spark session.

`python -m clickstream_assets_tests.whole_run FIRST_DAY LAST_DAY`
"""

import sys

import dagster as dg

from clickstream_assets.definitions import defs
from clickstream_assets.defs.resources import ComputeResource, SettingsResource
from clickstream_assets.engine import SparkEngine


def main(first: str, last: str) -> None:
    """Run the jobs `ingest`, `refresh` and `train` one after the other, as the sensors do."""
    definitions = defs()
    instance = dg.DagsterInstance.ephemeral()
    definitions.resolve_job_def("ingest").execute_in_process(instance=instance)
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    definitions.resolve_job_def("refresh").execute_in_process(instance=instance, tags=days)
    definitions.resolve_job_def("train").execute_in_process(instance=instance)
    engine = ComputeResource(settings=SettingsResource()).engine()
    print(type(engine.session).__module__ if isinstance(engine, SparkEngine) else engine.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
