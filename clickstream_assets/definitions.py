"""The one `Definitions`: everything under `defs/`, in one process per run."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location."""
    return dg.Definitions.merge(
        dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
        # A process per step would start the engine once per asset: on Spark 58 s where one process takes 12.
        dg.Definitions(executor=dg.in_process_executor),
    )
