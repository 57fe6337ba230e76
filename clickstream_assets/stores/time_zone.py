"""Time zone of a lake: that of its first events, as all of its days are the zone's.

`ingest_rules` keeps it with each batch, so it comes back with a backup.
"""

from clickstream_assets.catalogue import INGEST_RULES
from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


def require_time_zone(lake: Lake, settings: Settings) -> None:
    """Refuse to go on with a lake whose days are those of another time zone; one without events has none yet.

    Raises:
        InputError: SHOP_TIME_ZONE is another one; the message names both, and the fix.
        LakeError: the lake cannot be read.
    """
    batch = lake.snapshot(INGEST_RULES).batch if lake.exists(INGEST_RULES) else 0
    if not batch:
        return
    # Null in a lake from before there was a choice.
    kept = lake.rows_of_batch(INGEST_RULES, batch)["time_zone"][0].as_py() or "UTC"
    if kept != settings.shop_time_zone:
        raise InputError(
            f"SHOP_TIME_ZONE={settings.shop_time_zone!r}, and the lake in LAKE_PATH={settings.lake} has days of "
            f"{kept!r}. Set SHOP_TIME_ZONE={kept}; or set LAKE_PATH to a new folder and POSTGRES_DB to a new database, "
            "into which all events come in again, by the other clock"
        )
