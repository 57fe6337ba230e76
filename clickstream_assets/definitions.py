"""The one `Definitions`: everything under `defs/`, with the checks of its tables, in one process per run."""

from pathlib import Path

import dagster as dg

from clickstream_assets.defs.checks import table_checks
from clickstream_assets.defs.dagster_private import fork_runs
from clickstream_assets.defs.partitions import daily


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location."""
    loaded = load()
    # The first day is read from the lake by delta-rs, whose threads a fork would not have.
    fork_runs("clickstream_assets.preloaded", {"EVENTS_START_DATE": daily().start.date().isoformat()})
    return loaded


def load() -> dg.Definitions:
    """Put the definitions together."""
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(
        loaded,
        dg.Definitions(
            asset_checks=table_checks(loaded.assets or ()),
            # A process per step would start the engine once per asset: on Spark 58 s where one process takes 12.
            executor=dg.in_process_executor,
        ),
    )
