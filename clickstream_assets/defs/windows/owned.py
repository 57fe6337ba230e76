"""Reports of a run that leaves the streams to who has them."""

from clickstream_assets.catalogue import Table
from clickstream_assets.defs.assets import Metadata
from clickstream_assets.settings import Settings
from clickstream_assets.streaming.errors import StreamError
from clickstream_assets.streaming.outages import standing_still
from clickstream_assets.streaming.owner import OwnedError


def left_to(error: OwnedError, table: Table, settings: Settings) -> Metadata:
    """Return what is reported of a table that another process brings up to date, with the name of that.

    "Materialize all" counts an asset of which nothing is reported as failed.

    Raises:
        StreamError: it is not brought up to date there, as the query stands still.
    """
    if reason := standing_still(settings).get(table.name):
        raise StreamError(f"{error}, and {table.name} stands still: {reason}")
    return {"brought_up_to_date_by": str(error)}
