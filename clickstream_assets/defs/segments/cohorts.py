"""Keeps `user_weeks` right, of which cohorts are counted: only weeks with other days than before are read anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from hashlib import sha256

import pyarrow as pa

from clickstream_assets.analytics.cohorts import days_of_weeks, week_of, weeks_seen, with_cohorts
from clickstream_assets.catalogue import COHORT_INPUTS, USER_SEGMENTS, USER_WEEKS
from clickstream_assets.defs.differences import among, replace_rows, unlike
from clickstream_assets.defs.shopper_days import files_by
from clickstream_assets.engine import as_view, functions_of
from clickstream_assets.stores.lake import Lake, Snapshot

# Users and days that are worked on at once, or a single week.
ROWS_AT_ONCE = 2_000_000


def update_user_weeks(lake: Lake) -> None:
    """Bring `user_weeks` up to date with `user_segments`.

    Of a week with other files than its rows were made from, the users are compared with those of before. Only of those
    who came or went, all weeks are looked at: one of them may have another first week now. What a killed run has left
    is found by the next, as `cohort_inputs` is written last.
    """
    newest = lake.snapshot(USER_SEGMENTS)
    now = _files_by_week(newest)
    rows = [] if lake.is_lost(USER_WEEKS) else lake.rows(COHORT_INPUTS).to_pylist()
    made = {row["week"]: row["files"] for row in rows}
    changed = sorted(week for week in now.keys() | made.keys() if now.get(week) != made.get(week))
    if not changed:
        return
    for weeks in _parts(changed, newest):
        _update(lake, newest.version, weeks)
    inputs = [{"week": week, "files": files} for week, files in sorted(now.items())]
    lake.replace_rows(COHORT_INPUTS, pa.Table.from_pylist(inputs, schema=COHORT_INPUTS.arrow))


def _files_by_week(snapshot: Snapshot) -> dict[date, str]:
    weeks: dict[date, list[str]] = {}
    for day, files in sorted(files_by(snapshot, "report_date").items()):
        weeks.setdefault(week_of(day), []).append(f"{day} {files}")
    return {week: sha256("|".join(its).encode()).hexdigest()[:32] for week, its in weeks.items()}


def _parts(weeks: Sequence[date], snapshot: Snapshot) -> Iterator[list[date]]:
    """Split weeks into parts of at most ROWS_AT_ONCE rows, or of one week."""
    rows: dict[date, int] = {}
    for day, its in snapshot.rows_by("report_date").items():
        rows[week_of(day)] = rows.get(week_of(day), 0) + its
    part: list[date] = []
    held = 0
    for week in weeks:
        if part and held + rows.get(week, 0) > ROWS_AT_ONCE:
            yield part
            part, held = [], 0
        part.append(week)
        held += rows.get(week, 0)
    yield part


def _update(lake: Lake, version: int, weeks: Sequence[date]) -> None:
    engine = lake.engine
    segments = lake.read(USER_SEGMENTS, version, ("report_date", "user_id"), days=days_of_weeks(weeks))
    seen = engine.persist(weeks_seen(segments))
    there = lake.read(USER_WEEKS)
    F, _ = functions_of(there)
    of_weeks = F.col("week").isin(list(weeks))
    before = lake.read(USER_WEEKS, days=weeks).select("week", "user_id")
    moved = engine.persist(
        as_view(unlike(before, seen).union(unlike(seen, before))).select("user_id").distinct()
    )
    if engine.to_arrow(moved.limit(1)).num_rows:
        old = among(there, moved, "user_id")
        elsewhere = old.where(~of_weeks).select("week", "user_id")
        new = with_cohorts(as_view(elsewhere.union(among(seen, moved, "user_id"))))
        replace_rows(lake, USER_WEEKS, old, new)
    for df in (moved, seen):
        engine.release(df)
