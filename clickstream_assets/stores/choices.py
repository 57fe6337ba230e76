"""Settings that a lake keeps from its beginning on: its time zone, and whether it has pseudonyms.

All of its days are the zone's, and all of its rows have either ids or pseudonyms. `ingest_rules` keeps both with each
batch, so they come back with a backup.
"""

from clickstream_assets.catalogue import INGEST_RULES
from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.lake import Lake


def require_choices(lake: Lake, settings: Settings) -> None:
    """Refuse to go on with a lake that was begun with other settings; one without events has none yet.

    Raises:
        InputError: SHOP_TIME_ZONE or PSEUDONYMS is another one; the message names both values, and the fix.
        LakeError: the lake cannot be read.
    """
    batch = lake.snapshot(INGEST_RULES).batch if lake.exists(INGEST_RULES) else 0
    if not batch:
        return
    (kept,) = lake.rows_of_batch(INGEST_RULES, batch).select(["time_zone", "pseudonyms"]).to_pylist()
    anew = (
        "set LAKE_PATH to a new folder and POSTGRES_DB to a new database, into which all events come in again"
    )
    # Null in a lake from before there was a choice.
    zone, pseudonyms = kept["time_zone"] or "UTC", bool(kept["pseudonyms"])
    if zone != settings.shop_time_zone:
        raise InputError(
            f"SHOP_TIME_ZONE={settings.shop_time_zone!r}, and the lake in LAKE_PATH={settings.lake} has days of "
            f"{zone!r}. Set SHOP_TIME_ZONE={zone}; or {anew}, by the other clock"
        )
    if pseudonyms != settings.pseudonyms:
        chosen, others = ("true", "pseudonyms") if pseudonyms else ("false", "ids")
        raise InputError(
            f"PSEUDONYMS={str(settings.pseudonyms).lower()}, and the lake in LAKE_PATH={settings.lake} has {others} of "
            f"persons. Set PSEUDONYMS={chosen}; or {anew}"
        )
