"""First day of the daily partitions, which is kept with the lake from the first ingest on.

What has the lake has the day: it comes back with a backup, and all processes of a house read the same.
"""

from contextlib import suppress
from datetime import UTC, date, datetime

from clickstream_assets.catalogue import RAW_EVENTS
from clickstream_assets.engine import DuckDBEngine
from clickstream_assets.errors import InputError
from clickstream_assets.settings import Settings
from clickstream_assets.stores.choices import require_choices
from clickstream_assets.stores.lake import Lake, LakeConflictError

_MARK = "events_start_date"


def start_date(settings: Settings) -> date:
    """Return the first day: EVENTS_START_DATE, else what is kept with the lake, else 1 January of last year.

    Raises:
        LakeError: the lake cannot be read.
    """
    if settings.events_start_date:
        return settings.events_start_date
    lake = Lake(settings.lake, DuckDBEngine(settings))
    kept = _kept(lake) if lake.exists(RAW_EVENTS) else None
    return kept or date(datetime.now(UTC).year - 1, 1, 1)


def with_start_date(settings: Settings) -> Settings:
    """Return the settings with the first day as EVENTS_START_DATE.

    Raises:
        InputError: the lake was begun with another SHOP_TIME_ZONE.
        LakeError: the lake cannot be read.
    """
    require_choices(Lake(settings.lake, DuckDBEngine(settings)), settings)
    return settings.model_copy(update={"events_start_date": start_date(settings)})


def keep_start_date(lake: Lake, first: date) -> None:
    """Keep the first day with the lake, unless an earlier one is kept.

    Raises:
        LakeError: the lake cannot be written.
    """
    kept = _kept(lake)
    if kept is None or first < kept:
        # Another run that keeps it at once is as good.
        with suppress(LakeConflictError):
            lake.mark(RAW_EVENTS, {_MARK: first.toordinal()})


def require_not_before_start(settings: Settings, day: date, what: str) -> None:
    """Refuse to send events of which all, or the first, would be rejected.

    Raises:
        InputError: the day is before the first; the message names the setting and the fix.
    """
    first = start_date(settings)
    if day < first:
        raise InputError(
            f"{what} begins on {day}, before {first}, the first day of this pipeline, so its events would be rejected. "
            f"Set EVENTS_START_DATE={day} for Dagster, `clickstream stream` and this command, and start the first two "
            "anew"
        )


def _kept(lake: Lake) -> date | None:
    marks = lake.snapshot(RAW_EVENTS, [_MARK]).marks
    return date.fromordinal(marks[_MARK]) if marks else None
