"""The jobs that keep everything up to date: ingest events, refresh what rests on them, and run the streams."""

import dagster as dg

ONE_AT_A_TIME = "clickstream/one_at_a_time"
"""Tag that dagster.yaml limits to one run per value."""

ingest = dg.define_asset_job(
    "ingest",
    selection=dg.AssetSelection.assets(
        *("raw_events", "events", "duplicate_events", "conflicting_events", "rejected_events"),
        *("identity_ties", "exchange_rates", "rejected_counts"),
    ),
    tags={ONE_AT_A_TIME: "ingest"},
    description="What is new in Kafka, down to `events`, and how much of it was rejected.",
)

refresh = dg.define_asset_job(
    "refresh",
    # Mail goes out once a day, not with every event.
    selection=dg.AssetSelection.groups("sessions", "segments", "reports", "models", "serving")
    - dg.AssetSelection.assets("report_mail"),
    tags={ONE_AT_A_TIME: "refresh"},
    description="The tables of some days, then the models and what is served.",
)

stream = dg.define_asset_job(
    "stream",
    selection=dg.AssetSelection.groups("windows"),
    tags={ONE_AT_A_TIME: "stream"},
    description="Windows, alerts and live events, straight from Kafka, up to now.",
)

stream_checks = dg.define_asset_job(
    "stream_checks",
    selection=dg.AssetSelection.checks_for_assets("product_windows", "flash_sale_alerts"),
    tags={ONE_AT_A_TIME: "stream_checks"},
    description="Only the checks of windows and alerts, which `clickstream stream` keeps up to date.",
)
