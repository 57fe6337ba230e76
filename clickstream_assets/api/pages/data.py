"""The page of the data themselves: how far they have come, what became of records, and what is wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from flask import Response

from clickstream_assets.api.pages.asked import Range, range_asked
from clickstream_assets.api.pages.parts import Chart, Figure, Series
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import page, reader_of
from clickstream_assets.api.pages.source import Answer, Source
from clickstream_assets.catalogue.clock import ShopClock

_USUAL_DAYS = 14
_MOST_DAYS = 90
"""Counts of so many days are served."""
_SAMPLES_SHOWN = 3
_REASONS_SHOWN = 30
_BY = {"rejected": "the ingest", "refused": "Elasticsearch", "left_out": "left out of events"}

Rows = Sequence[Mapping[str, Any]]


def show_data() -> Response:
    """Show how the data are, and what became of the records of a range of days: of the last 14 by default."""
    source = Source()
    reader = reader_of(source)
    said = source.get("/api/data")
    today = source.today if said.content else None
    asked = None
    figures: list[Figure] = []
    charts: list[Chart] = []
    reasons: list[dict[str, Any]] = []
    if today:
        # What is wrong with the servers, this one's included: each says it in its own words.
        source.get("/health/ready")
        asked = range_asked(today, _USUAL_DAYS, _MOST_DAYS)
        records = source.all_rows("/api/records", "records", since=asked.first, until=asked.last)
        clock = ShopClock(reader.zone.key)
        samples = source.get(
            "/api/rejected/samples",
            since=_iso(clock.begin(asked.first)),
            until=_iso(clock.begin(asked.last + timedelta(days=1))),
            limit=1000,
        )
        figures = _figures(said, today)
        charts = [_chart(reader, asked, records)]
        reasons = _reasons(records, samples.rows("samples"))
    return page(
        "data.html.j2",
        source,
        reader,
        title="Data",
        said=said.content,
        asked=asked,
        today=today,
        figures=figures,
        charts=charts,
        reasons=reasons[:_REASONS_SHOWN],
        shows_samples=source.shows_persons,
        more_reasons=max(0, len(reasons) - _REASONS_SHOWN),
        health=next((each for each in source.answers if each.address == "/health/ready"), None),
        time=_time,
        age=lambda text: _age(said, text),
    )


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _age(said: Answer, text: str | None) -> float | None:
    """Return how long ago a time of the answer was when it was given, in seconds."""
    then, now = _time(text), _time(said.content.get("asked_at"))
    return (now - then).total_seconds() if now and then else None


def _figures(said: Answer, today: date) -> list[Figure]:
    content = said.content
    of_today = next((day for day in content["days"] if day["date"] == str(today)), None)
    checks = content["checks"]
    return [
        Figure("Records waiting in Kafka", content["ingest"]["waiting_records"]),
        Figure("Age of the newest event", _age(said, content["ingest"]["newest_event_at"]), "duration"),
        Figure("Records today", of_today["received"] if of_today else 0),
        Figure("Rejected today", of_today["rejected"] if of_today else 0, link="#rejected"),
        Figure(
            "Checks failing",
            sum(check["is_failing"] for check in checks) if checks else None,
            link="#checks",
        ),
        Figure("Wrong now", len(content["problems"]) if content["sources"] else None, link="#problems"),
    ]


def _chart(reader: Reader, asked: Range, records: Rows) -> Chart:
    counts: Counter[tuple[str, str]] = Counter()
    for row in records:
        counts[row["arrival_date"], row["outcome"]] += row["records"]

    def values(outcome: str, less: str | None = None) -> list[float | None]:
        if not counts:
            return [None for _ in asked.days]
        return [counts[str(day), outcome] - (counts[str(day), less] if less else 0) for day in asked.days]

    return Chart(
        "records",
        "Records by day of arrival, by what became of them",
        "records",
        [reader.weekday(day) for day in asked.days],
        [
            Series("Events in time", values("event", less="late")),
            Series("Events of an earlier day", values("late")),
            Series("Duplicates", values("duplicate")),
            Series("Conflicts", values("conflict")),
            Series("Rejected", values("rejected")),
        ],
        form="stacked",
    )


def _reasons(records: Rows, samples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return why records were rejected, or fields left out: by rule and field, the most frequent first."""
    received = sum(
        row["records"] for row in records if row["outcome"] in ("event", "duplicate", "conflict", "rejected")
    )
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in records:
        if row["outcome"] in _BY:
            counts[row["outcome"], row["rule"], row["field"]] += row["records"]
    examples: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        examples[sample["rule"], sample["field"]].append(sample)
    return [
        {
            "outcome": outcome,
            "by": _BY[outcome],
            "rule": rule,
            "field": field,
            "records": number,
            "share": 100 * number / received if received else None,
            "samples": examples[rule, field][:_SAMPLES_SHOWN] if outcome == "rejected" else [],
        }
        for (outcome, rule, field), number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
