"""All tables.

`clickstream_sessions`, `user_segments`, `product_recommendations`, `flash_sale_alerts`, `daily_summary`,
`product_performance` and `category_conversion` start with the columns of older tables of these names, because readers
of those select by position. What is new has defaults, so that a writer who knows only the older columns goes on
working.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_MONEY = sa.Numeric(18, 4)
_PERCENT = sa.Numeric(18, 2)
_NOW = sa.text("now()")


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "alert_notifications",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("notified_id", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("payload", JSONB, server_default="{}", nullable=False),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("delivered_at", _TIME),
        sa.Column("failed_at", _TIME),
        sa.Column("attempts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("next_attempt_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.CheckConstraint(
            "kind IN ('opened', 'updated', 'resolved', 'withdrawn')", name="alert_notifications_kind_check"
        ),
        sa.PrimaryKeyConstraint("id", name="alert_notifications_pkey"),
        sa.UniqueConstraint(
            "notified_id", "sequence", "sink", name="alert_notifications_notified_id_sequence_sink_key"
        ),
    )
    op.create_index(
        "alert_notifications_pending",
        "alert_notifications",
        ["next_attempt_at"],
        postgresql_where=sa.text("delivered_at IS NULL AND failed_at IS NULL"),
    )

    op.create_table(
        "campaign_attribution",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("campaign", sa.Text, nullable=False),
        sa.Column("orders", _MONEY, nullable=False),
        sa.Column("revenue", _MONEY, nullable=False),
        sa.PrimaryKeyConstraint("report_date", "model", "campaign", name="campaign_attribution_pkey"),
    )

    op.create_table(
        "carts",
        sa.Column("cart_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("last_activity_at", _TIME, nullable=False),
        sa.Column("items", sa.BigInteger, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("value", _MONEY, nullable=False),
        sa.Column("currency", sa.Text),
        sa.Column("product_ids", ARRAY(sa.Text), nullable=False),
        sa.Column("abandoned_at", _TIME),
        sa.Column("purchased_at", _TIME),
        sa.Column("seconds_to_purchase", sa.BigInteger),
        sa.Column("order_id", sa.Text),
        sa.PrimaryKeyConstraint("cart_id", name="carts_pkey"),
    )
    op.create_index("carts_last_activity_at", "carts", [sa.text("last_activity_at DESC"), "cart_id"])
    op.create_index("carts_state_last_activity_at", "carts", ["state", "last_activity_at"])
    op.create_index("carts_user_id", "carts", ["user_id"])
    op.create_index("carts_value", "carts", [sa.text("value DESC"), "cart_id"])

    op.create_table(
        "category_conversion",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("views", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("purchases", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("conversion_rate", _PERCENT, server_default="0", nullable=False),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("add_to_carts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("revenue", _MONEY, server_default="0", nullable=False),
        sa.Column("users", sa.BigInteger, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="category_conversion_pkey"),
        sa.UniqueConstraint("report_date", "category", name="category_conversion_report_date_category_key"),
    )

    op.create_table(
        "clickstream_sessions",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("total_events", sa.BigInteger, nullable=False),
        sa.Column("session_date", sa.Date, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
        sa.Column("duration_seconds", sa.BigInteger, nullable=False),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("clicks", sa.BigInteger, nullable=False),
        sa.Column("add_to_carts", sa.BigInteger, nullable=False),
        sa.Column("remove_from_carts", sa.BigInteger, nullable=False),
        sa.Column("purchases", sa.BigInteger, nullable=False),
        sa.Column("searches", sa.BigInteger, nullable=False),
        sa.Column("distinct_products", sa.BigInteger, nullable=False),
        sa.Column("entry_product_id", sa.Text),
        sa.Column("exit_product_id", sa.Text),
        sa.Column("revenue", _MONEY, nullable=False),
        sa.Column("is_bot", sa.Boolean, nullable=False),
        sa.Column("bot_reason", sa.Text),
        sa.Column("furthest_step", sa.Text, nullable=False),
        sa.Column("campaign", sa.Text),
        sa.Column("client_session_ids", ARRAY(sa.Text)),
        sa.PrimaryKeyConstraint("session_id", name="clickstream_sessions_pkey"),
    )
    op.create_index(
        "clickstream_sessions_campaign",
        "clickstream_sessions",
        ["campaign", "session_date"],
        postgresql_where=sa.text("campaign IS NOT NULL"),
    )
    op.create_index(
        "clickstream_sessions_furthest_step",
        "clickstream_sessions",
        ["furthest_step", sa.text("total_events DESC"), "session_id"],
    )
    op.create_index("clickstream_sessions_session_date", "clickstream_sessions", ["session_date"])
    op.create_index(
        "clickstream_sessions_total_events",
        "clickstream_sessions",
        [sa.text("total_events DESC"), "session_id"],
    )
    op.create_index("clickstream_sessions_user_id", "clickstream_sessions", ["user_id"])

    op.create_table(
        "cohort_retention",
        sa.Column("cohort_week", sa.Date, nullable=False),
        sa.Column("weeks_since", sa.BigInteger, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("active_users", sa.BigInteger, nullable=False),
        sa.Column("retention_rate", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("cohort_week", "weeks_since", name="cohort_retention_pkey"),
    )

    op.create_table(
        "customer_segment_days",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("as_of", _TIME, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("report_date", name="customer_segment_days_pkey"),
    )

    op.create_table(
        "customer_segments",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("rfm_segment", sa.Text),
        sa.Column("recency_days", sa.BigInteger),
        sa.Column("frequency", sa.BigInteger, nullable=False),
        sa.Column("monetary", _MONEY, nullable=False),
        sa.Column("r_score", sa.BigInteger),
        sa.Column("f_score", sa.BigInteger),
        sa.Column("m_score", sa.BigInteger),
        sa.Column("abandoned_carts", sa.BigInteger, nullable=False),
        sa.Column("abandoned_value", _MONEY, nullable=False),
        sa.PrimaryKeyConstraint("report_date", "user_id", name="customer_segments_pkey"),
    )
    op.create_index("customer_segments_rfm_segment", "customer_segments", ["report_date", "rfm_segment"])
    op.create_index("customer_segments_user_id", "customer_segments", ["user_id", "report_date"])

    op.create_table(
        "daily_report",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("generated_at", _TIME, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("made_from", sa.Text),
        sa.PrimaryKeyConstraint("report_date", name="daily_report_pkey"),
    )

    op.create_table(
        "daily_summary",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("total_events", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("buyer_count", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("window_shopper_count", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("buyer_rate", _PERCENT, server_default="0", nullable=False),
        sa.Column("generated_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("users", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("sessions", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("bounced_sessions", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("bounce_rate", _PERCENT, server_default="0", nullable=False),
        sa.Column("views", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("add_to_carts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("purchases", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("orders", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("revenue", _MONEY, server_default="0", nullable=False),
        sa.Column("average_order_value", _MONEY),
        sa.Column("converted_sessions", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("conversion_rate", _PERCENT, server_default="0", nullable=False),
        sa.Column("bot_events", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("bot_sessions", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("currencies", ARRAY(sa.Text)),
        sa.PrimaryKeyConstraint("id", name="daily_summary_pkey"),
        sa.UniqueConstraint("report_date", name="daily_summary_report_date_key"),
    )

    op.create_table(
        "flash_sale_alerts",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("window_start", _TIME, nullable=False),
        sa.Column("window_end", _TIME, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("purchases", sa.BigInteger, nullable=False),
        sa.Column("detected_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("product_category", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("conversion", sa.Double, nullable=False),
        sa.Column("first_window_start", _TIME, nullable=False),
        sa.Column("last_window_end", _TIME, nullable=False),
        sa.Column("windows", sa.BigInteger, nullable=False),
        sa.Column("resolved_at", _TIME),
        sa.Column("usual_views", sa.Double),
        sa.Column("unusualness", sa.Double),
        sa.Column("is_confirmed", sa.Boolean, server_default="false", nullable=False),
        sa.CheckConstraint("state IN ('open', 'resolved')", name="flash_sale_alerts_state_check"),
        sa.PrimaryKeyConstraint("id", name="flash_sale_alerts_pkey"),
        sa.UniqueConstraint("alert_id", name="flash_sale_alerts_alert_id_key"),
    )
    op.create_index("flash_sale_alerts_first_window_start", "flash_sale_alerts", ["first_window_start"])
    op.create_index(
        "flash_sale_alerts_open",
        "flash_sale_alerts",
        ["last_window_end"],
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("flash_sale_alerts_product_id", "flash_sale_alerts", ["product_id", "first_window_start"])

    op.create_table(
        "funnel",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("dimension", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("step_number", sa.Integer, nullable=False),
        sa.Column("users", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("conversion_from_previous", _PERCENT),
        sa.Column("conversion_from_first", _PERCENT, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("report_date", "dimension", "value", "step", name="funnel_pkey"),
    )

    op.create_table(
        "met_products",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("product_ids", ARRAY(sa.Text), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="met_products_pkey"),
    )

    op.create_table(
        "model_evaluation",
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("k", sa.BigInteger, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("ndcg", sa.Double, nullable=False),
        sa.Column("map", sa.Double, nullable=False),
        sa.Column("precision", sa.Double, nullable=False),
        sa.Column("recall", sa.Double, nullable=False),
        sa.Column("coverage", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("chosen", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model_version", "algorithm", name="model_evaluation_pkey"),
    )

    op.create_table(
        "popular_products",
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("product_category", sa.Text),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("purchases", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("product_id", name="popular_products_pkey"),
    )
    op.create_index("popular_products_rank", "popular_products", ["rank"])

    op.create_table(
        "product_performance",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("view_count", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("rank", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("product_category", sa.Text),
        sa.Column("add_to_carts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("purchases", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("quantity", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("revenue", _MONEY, server_default="0", nullable=False),
        sa.Column("users", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("buyers", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("conversion_rate", _PERCENT, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="product_performance_pkey"),
        sa.UniqueConstraint(
            "report_date", "product_id", name="product_performance_report_date_product_id_key"
        ),
    )
    op.create_index("product_performance_product_id", "product_performance", ["product_id"])
    op.create_index("product_performance_report_date_rank", "product_performance", ["report_date", "rank"])

    op.create_table(
        "product_recommendations",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("confidence_score", sa.Double, nullable=False),
        sa.Column("rank", sa.BigInteger, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reason_product_id", sa.Text),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("published_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "product_id", name="product_recommendations_pkey"),
    )
    op.create_index("product_recommendations_user_id_rank", "product_recommendations", ["user_id", "rank"])

    op.create_table(
        "product_windows",
        sa.Column("window_start", _TIME, nullable=False),
        sa.Column("window_end", _TIME, nullable=False),
        sa.Column("window_date", sa.Date, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("product_category", sa.Text),
        sa.Column("views", sa.BigInteger, nullable=False),
        sa.Column("add_to_carts", sa.BigInteger, nullable=False),
        sa.Column("purchases", sa.BigInteger, nullable=False),
        sa.Column("total_events", sa.BigInteger, nullable=False),
        sa.Column("distinct_users", sa.BigInteger, nullable=False),
        sa.Column("first_event_time", _TIME, nullable=False),
        sa.Column("last_event_time", _TIME, nullable=False),
        sa.Column("is_final", sa.Boolean, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("window_start", "product_id", name="product_windows_pkey"),
    )
    op.create_index("product_windows_batch_id", "product_windows", ["batch_id"])
    op.create_index(
        "product_windows_open", "product_windows", ["window_end"], postgresql_where=sa.text("NOT is_final")
    )
    op.create_index("product_windows_product_id", "product_windows", ["product_id", "window_start"])

    op.create_table(
        "published_models",
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("algorithm", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("metric_name", sa.Text, nullable=False),
        sa.Column("metric", sa.Double),
        sa.Column("baseline_metric", sa.Double),
        sa.Column("trained_on", sa.Text, nullable=False),
        sa.Column("users", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("published_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("model_version", name="published_models_pkey"),
    )

    op.create_table(
        "report_mails",
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("sent_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("report_date", "recipient", name="report_mails_pkey"),
    )

    op.create_table(
        "served_models",
        sa.Column("answers", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("served_since", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("answers", name="served_models_pkey"),
    )

    op.create_table(
        "stream_batches",
        sa.Column("batch_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("watermark", _TIME),
        sa.Column("offsets", JSONB, server_default="{}", nullable=False),
        sa.Column("recorded_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", name="stream_batches_pkey"),
    )

    op.create_table(
        "stream_progress",
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("base_batch_id", sa.BigInteger, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("watermark", _TIME),
        sa.Column("floor", _TIME),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("offsets", JSONB, server_default="{}", nullable=False),
        sa.Column("alert_rules", JSONB, server_default="{}", nullable=False),
        sa.Column("read_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("idle_until", _TIME),
        sa.Column("updated_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("query", name="stream_progress_pkey"),
    )

    op.create_table(
        "stream_status",
        sa.Column("query", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("batch_id", sa.BigInteger, nullable=False),
        sa.Column("watermark", _TIME),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("dropped_late", sa.BigInteger, nullable=False),
        sa.Column("lag", JSONB, server_default="{}", nullable=False),
        sa.Column("latency_seconds", sa.Double),
        sa.Column("rows_per_second", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("updated_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("query", name="stream_status_pkey"),
    )

    op.create_table(
        "notified_alerts",
        sa.Column("notified_id", sa.Text, nullable=False),
        sa.Column("alert_id", sa.Text, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("first_window_start", _TIME, nullable=False),
        sa.Column("last_window_end", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("notified_id", name="notified_alerts_pkey"),
    )
    op.create_index("notified_alerts_product_id", "notified_alerts", ["product_id", "last_window_end"])

    op.create_table(
        "user_segments",
        sa.Column("id", sa.BigInteger, sa.Identity()),
        sa.Column("report_date", sa.Date, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("segment", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("events", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("views", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("add_to_carts", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("purchases", sa.BigInteger, server_default="0", nullable=False),
        sa.Column("revenue", _MONEY, server_default="0", nullable=False),
        sa.CheckConstraint("segment IN ('buyer', 'window_shopper')", name="user_segments_segment_check"),
        sa.PrimaryKeyConstraint("id", name="user_segments_pkey"),
        sa.UniqueConstraint("report_date", "user_id", name="user_segments_report_date_user_id_key"),
    )
    op.create_index("user_segments_report_date", "user_segments", ["report_date"])
    op.create_index("user_segments_segment", "user_segments", ["segment"])
    op.create_index("user_segments_user_id", "user_segments", ["user_id", "report_date"])


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "alert_notifications",
        "campaign_attribution",
        "carts",
        "category_conversion",
        "clickstream_sessions",
        "cohort_retention",
        "customer_segment_days",
        "customer_segments",
        "daily_report",
        "daily_summary",
        "flash_sale_alerts",
        "funnel",
        "met_products",
        "model_evaluation",
        "popular_products",
        "product_performance",
        "product_recommendations",
        "product_windows",
        "published_models",
        "report_mails",
        "served_models",
        "stream_batches",
        "stream_progress",
        "stream_status",
        "notified_alerts",
        "user_segments",
    ):
        op.drop_table(table)
