"""The jobs that keep everything up to date: ingest events, refresh their days, train models, and run the streams."""

import dagster as dg

ONE_AT_A_TIME = "clickstream/one_at_a_time"
"""Tag that dagster.yaml limits to one run per value."""
WAITING_RECORDS = "clickstream/waiting_records"
"""Tag of a run that new records have started: how many offsets were waiting."""
GIVES_WAY = "clickstream/gives_way"
"""Tag of a run that leaves the processors to others: its niceness, 1 to 19."""
TRAINING_KEEPS_UP = dg.AssetCheckKey(dg.AssetKey("product_recommendations"), "training_keeps_up")
"""The check that a refresh carries out on what a training made."""

ingest = dg.define_asset_job(
    "ingest",
    selection=dg.AssetSelection.assets(
        *("raw_events", "events", "duplicate_events", "conflicting_events", "rejected_events"),
        *("identity_ties", "exchange_rates", "rejected_counts"),
    ),
    tags={ONE_AT_A_TIME: "ingest"},
    description="What is new in Kafka, down to `events`, and how much of it was rejected.",
)

_DAYS_OF_MODELS = dg.AssetSelection.assets("interaction_days")
PUBLISHED_BESIDE = ("published_next_product", "published_predictions")
"""Assets that a training ends with, besides the recommendations."""
_RECOMMENDATIONS = dg.AssetSelection.assets("product_recommendations", *PUBLISHED_BESIDE)

refresh = dg.define_asset_job(
    "refresh",
    selection=(
        (dg.AssetSelection.groups("sessions", "segments", "reports", "products", "serving") | _DAYS_OF_MODELS)
        # Mail goes out once a day, and models are trained when there is enough new, not with every event.
        # A feed is taken in when there is something new in it.
        - (dg.AssetSelection.assets("report_mail", "product_feed") | _RECOMMENDATIONS)
    )
    | dg.AssetSelection.checks(TRAINING_KEEPS_UP),
    tags={ONE_AT_A_TIME: "refresh"},
    description="The tables of some days, and what is served of them.",
)

erase = dg.define_asset_job(
    "erase",
    selection=dg.AssetSelection.assets("erased_records"),
    # Both replace rows of the same tables.
    tags={ONE_AT_A_TIME: "refresh"},
    description="The records of persons who asked to be erased; a refresh and a training make the rest without them.",
)

catalogue = dg.define_asset_job(
    "catalogue",
    selection=dg.AssetSelection.assets("product_feed", "products", "published_products"),
    # Both make products.
    tags={ONE_AT_A_TIME: "refresh"},
    description="What a feed says of products, down to what is served of them.",
)

train = dg.define_asset_job(
    "train",
    selection=(dg.AssetSelection.groups("models", "predictions") - _DAYS_OF_MODELS) | _RECOMMENDATIONS,
    # Beside a refresh: it reads one version of the tables of days, and writes none of them. New events wait for a
    # refresh, and nobody for a training; at 10 it has a tenth of a processor that both want.
    tags={ONE_AT_A_TIME: "train", GIVES_WAY: "10"},
    description="The models of TRAINING_DAYS, their evaluation, and the recommendations that are served.",
)

experiments = dg.define_asset_job(
    "experiments",
    selection=dg.AssetSelection.groups("experiments"),
    tags={ONE_AT_A_TIME: "experiments", GIVES_WAY: "10"},
    description="Who was shown what in experiments, what came of it by arm, and what is served of that.",
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
