"""The two jobs that keep everything up to date: bring events in, and bring the tables that rest on them along."""

import dagster as dg

ONE_AT_A_TIME = "clickstream/one_at_a_time"
"""Tag that dagster.yaml limits to one run per value."""

ingest = dg.define_asset_job(
    "ingest",
    selection=dg.AssetSelection.assets(
        "raw_events", "events", "duplicate_events", "conflicting_events", "rejected_events"
    ),
    tags={ONE_AT_A_TIME: "ingest"},
    description="What is new in Kafka, down to `events`.",
)

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.groups("sessions", "segments", "models", "serving"),
    tags={ONE_AT_A_TIME: "refresh"},
    description="The tables of some days, then the models and what is served.",
)
