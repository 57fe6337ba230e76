"""The one `Definitions`: everything under `defs/`, with the checks of its tables, in one process per run."""

from pathlib import Path

import dagster as dg

from clickstream_assets.defs.checks import table_checks
from clickstream_assets.defs.dagster_private import fork_runs

fork_runs()


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location."""
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(
        loaded,
        dg.Definitions(
            asset_checks=table_checks(loaded.assets or ()),
            # A process per step would start the engine once per asset: on Spark 58 s where one process takes 12.
            executor=dg.in_process_executor,
        ),
    )
