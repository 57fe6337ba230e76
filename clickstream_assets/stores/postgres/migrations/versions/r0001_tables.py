"""All tables.

`clickstream_sessions`, `user_segments`, `product_recommendations`, `flash_sale_alerts`, `daily_summary`,
`product_performance` and `category_conversion` start with the columns of older tables of these names, because readers
of those select by position. What is new has defaults, so that a writer who knows only the older columns goes on
working.
"""

from functools import partial
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_MONEY = sa.Numeric(28, 4)
_PERCENT = sa.Numeric(18, 2)


def _columns(kind: Any, *names: str, **options: Any) -> list[sa.Column[Any]]:
    """Return columns that differ in their names alone."""
    return [sa.Column(name, kind, **options) for name in names]


_required = partial(_columns, nullable=False)
_zero = partial(_required, server_default="0")
_json = partial(_required, JSONB, server_default="{}")
_now = partial(_required, _TIME, server_default=sa.text("now()"))


def _measure(name: str) -> list[sa.Column[Any]]:
    """Return the columns of a figure of an arm: its value, its difference to the control, and intervals of both."""
    figures = (name, f"{name}_difference")
    return _columns(sa.Double, *(f"{each}{part}" for each in figures for part in ("", "_low", "_high")))


def _tables() -> dict[str, list[sa.schema.SchemaItem]]:
    """Return the parts of each table; keys get the names of the metadata's convention."""
    return {
        "alert_notifications": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(sa.Text, "notified_id"),
            *_required(sa.BigInteger, "sequence"),
            *_required(sa.Text, "kind", "sink"),
            *_json("payload"),
            *_now("created_at"),
            *_columns(_TIME, "delivered_at", "failed_at"),
            *_zero(sa.BigInteger, "attempts"),
            *_now("next_attempt_at"),
            *_columns(sa.Text, "last_error"),
            sa.CheckConstraint(
                "kind IN ('opened', 'updated', 'resolved', 'withdrawn')",
                name="alert_notifications_kind_check",
            ),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("notified_id", "sequence", "sink"),
        ],
        "campaign_attribution": [
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "model", "campaign"),
            *_required(_MONEY, "orders", "revenue"),
            sa.PrimaryKeyConstraint("report_date", "model", "campaign"),
        ],
        "carts": [
            *_required(sa.Text, "cart_id", "user_id", "state"),
            *_required(_TIME, "opened_at", "last_activity_at"),
            *_required(sa.Date, "last_activity_date"),
            *_required(sa.BigInteger, "items"),
            *_required(_MONEY, "quantity", "value"),
            *_columns(sa.Text, "currency"),
            *_required(ARRAY(sa.Text), "product_ids"),
            *_columns(_TIME, "abandoned_at", "purchased_at"),
            *_columns(sa.BigInteger, "seconds_to_purchase"),
            *_columns(sa.Text, "order_id"),
            sa.PrimaryKeyConstraint("cart_id"),
        ],
        "category_conversion": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "category"),
            *_zero(sa.BigInteger, "views", "purchases"),
            *_zero(_PERCENT, "conversion_rate"),
            *_now("created_at"),
            *_zero(sa.BigInteger, "add_to_carts"),
            *_zero(_MONEY, "revenue", "refunds", "net_revenue"),
            *_zero(sa.BigInteger, "users"),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("report_date", "category"),
        ],
        "clickstream_sessions": [
            *_required(sa.Text, "session_id"),
            *_required(sa.BigInteger, "total_events"),
            *_required(sa.Date, "session_date"),
            *_required(sa.Text, "user_id"),
            *_required(_TIME, "start_time", "end_time"),
            *_required(sa.BigInteger, "duration_seconds", "views", "clicks", "add_to_carts"),
            *_required(
                sa.BigInteger, "remove_from_carts", "purchases", "searches", "page_views", "impressions"
            ),
            *_required(
                sa.BigInteger, "add_to_wishlists", "begin_checkouts", "refund_count", "distinct_products"
            ),
            *_columns(sa.Text, "entry_product_id", "exit_product_id"),
            *_required(_MONEY, "revenue"),
            *_required(sa.Boolean, "is_bot"),
            *_columns(sa.Text, "bot_reason"),
            *_required(sa.Text, "furthest_step"),
            *_columns(sa.Text, "campaign"),
            *_columns(ARRAY(sa.Text), "client_session_ids"),
            sa.PrimaryKeyConstraint("session_id"),
        ],
        "cohort_retention": [
            *_required(sa.Date, "cohort_week"),
            *_required(sa.BigInteger, "weeks_since", "users", "active_users"),
            *_required(_PERCENT, "retention_rate"),
            sa.PrimaryKeyConstraint("cohort_week", "weeks_since"),
        ],
        "customer_segment_days": [
            *_required(sa.Date, "report_date"),
            *_required(_TIME, "as_of"),
            *_required(sa.BigInteger, "events"),
            *_required(sa.Text, "fingerprint"),
            sa.PrimaryKeyConstraint("report_date"),
        ],
        "customer_segments": [
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "user_id"),
            *_columns(sa.Text, "rfm_segment"),
            *_columns(sa.BigInteger, "recency_days"),
            *_required(sa.BigInteger, "frequency"),
            *_required(_MONEY, "monetary", "refunds", "net_monetary"),
            *_columns(sa.BigInteger, "r_score", "f_score", "m_score"),
            *_required(sa.BigInteger, "abandoned_carts"),
            *_required(_MONEY, "abandoned_value"),
            sa.PrimaryKeyConstraint("report_date", "user_id"),
        ],
        "daily_report": [
            *_required(sa.Date, "report_date"),
            *_required(_TIME, "generated_at"),
            *_required(sa.Text, "report"),
            *_columns(sa.Text, "made_from"),
            sa.PrimaryKeyConstraint("report_date"),
        ],
        "daily_summary": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(sa.Date, "report_date"),
            *_zero(sa.BigInteger, "total_events", "buyer_count", "window_shopper_count"),
            *_zero(_PERCENT, "buyer_rate"),
            *_now("generated_at"),
            *_zero(sa.BigInteger, "users", "sessions", "bounced_sessions"),
            *_zero(_PERCENT, "bounce_rate"),
            *_zero(sa.BigInteger, "views", "add_to_carts", "purchases", "orders"),
            *_zero(_MONEY, "revenue", "refunds", "net_revenue"),
            *_columns(_MONEY, "average_order_value"),
            *_zero(sa.BigInteger, "converted_sessions"),
            *_zero(_PERCENT, "conversion_rate"),
            *_zero(sa.BigInteger, "bot_events", "bot_sessions"),
            *_columns(ARRAY(sa.Text), "currencies"),
            *_columns(sa.Text, "currency"),
            *_zero(sa.BigInteger, "unconverted"),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("report_date"),
        ],
        "erased_places": [
            *_required(sa.Text, "topic"),
            *_required(sa.Integer, "partition"),
            *_required(sa.BigInteger, "offset"),
            *_required(sa.Integer, "item"),
            *_required(sa.BigInteger, "erasure"),
            sa.PrimaryKeyConstraint("topic", "partition", "offset", "item"),
        ],
        "erasures": [
            sa.Column("erasure", sa.BigInteger, sa.Identity()),
            *_columns(ARRAY(sa.Text), "persons"),
            *_now("asked_at"),
            *_columns(_TIME, "erased_at", "done_at"),
            *_json("receipt"),
            sa.PrimaryKeyConstraint("erasure"),
        ],
        "experiment_recommendations": [
            *_required(sa.Text, "lists_of", "user_id", "product_id"),
            *_required(sa.BigInteger, "rank"),
            *_required(sa.Double, "confidence_score"),
            *_required(sa.Text, "algorithm", "reason"),
            *_columns(sa.Text, "reason_product_id"),
            *_required(sa.Text, "model_version"),
            sa.PrimaryKeyConstraint("lists_of", "user_id", "product_id"),
        ],
        "experiment_results": [
            *_required(sa.Text, "experiment", "arm"),
            *_required(sa.BigInteger, "place"),
            *_required(sa.Text, "serves"),
            *_required(sa.Double, "share"),
            *_required(sa.Text, "metric"),
            *_required(sa.BigInteger, "window_hours"),
            *_columns(_TIME, "as_of"),
            *_required(sa.BigInteger, "exposures", "units", "units_of_several_arms"),
            *_required(sa.BigInteger, "judged_units", "clicked_units"),
            *_measure("click_through"),
            *_required(sa.BigInteger, "converted_units"),
            *_measure("conversion"),
            *_required(_MONEY, "revenue"),
            *_measure("revenue_per_unit"),
            *_columns(sa.Double, "difference_low", "difference_high", "p_value"),
            *_required(sa.Text, "decision"),
            *_columns(sa.Date, "decided_on"),
            *_columns(sa.Double, "sizes_p_value"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("experiment", "arm"),
        ],
        "flash_sale_alerts": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(_TIME, "window_start", "window_end"),
            *_required(sa.Text, "product_id"),
            *_required(sa.BigInteger, "views", "purchases"),
            *_now("detected_at"),
            *_required(sa.Text, "alert_id"),
            *_columns(sa.Text, "product_category"),
            *_required(sa.Text, "state"),
            *_required(_PERCENT, "conversion_rate"),
            *_required(_TIME, "first_window_start", "last_window_end"),
            *_required(sa.BigInteger, "windows"),
            *_columns(_TIME, "resolved_at"),
            *_columns(sa.Double, "usual_views", "unusualness"),
            sa.Column("is_confirmed", sa.Boolean, server_default="false", nullable=False),
            sa.CheckConstraint("state IN ('open', 'resolved')", name="flash_sale_alerts_state_check"),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("alert_id"),
        ],
        "funnel": [
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "dimension", "value", "step"),
            *_required(sa.Integer, "step_number"),
            *_zero(sa.BigInteger, "users"),
            *_columns(_PERCENT, "conversion_from_previous"),
            *_zero(_PERCENT, "conversion_from_first"),
            sa.PrimaryKeyConstraint("report_date", "dimension", "value", "step"),
        ],
        "hourly_summary": [
            *_required(sa.Date, "report_date"),
            *_required(_TIME, "hour_start"),
            *_required(sa.BigInteger, "total_events", "users", "sessions", "converted_sessions"),
            *_required(_PERCENT, "conversion_rate"),
            *_required(sa.BigInteger, "views", "add_to_carts", "purchases", "orders"),
            *_required(_MONEY, "revenue", "refunds", "net_revenue"),
            sa.PrimaryKeyConstraint("report_date", "hour_start"),
        ],
        "identities": [
            *_required(sa.Text, "anonymous_id", "user_id"),
            *_required(_TIME, "first_tied_at"),
            *_required(sa.Boolean, "is_latest"),
            sa.PrimaryKeyConstraint("anonymous_id", "user_id"),
        ],
        "measurements": [
            *_required(sa.Text, "source"),
            *_required(JSONB, "samples"),
            *_json("state"),
            *_now("measured_at"),
            sa.PrimaryKeyConstraint("source"),
        ],
        "bought_products": [
            *_required(sa.Text, "user_id"),
            *_required(ARRAY(sa.Text), "product_ids"),
            *_required(ARRAY(sa.BigInteger), "days", "last_times"),
            sa.PrimaryKeyConstraint("user_id"),
        ],
        "met_products": [
            *_required(sa.Text, "user_id"),
            *_required(ARRAY(sa.Text), "product_ids"),
            sa.PrimaryKeyConstraint("user_id"),
        ],
        "profiling_refusals": [
            *_required(sa.Text, "user_id"),
            *_required(_TIME, "refused"),
            sa.Column("agreed_on", sa.Date),
            sa.PrimaryKeyConstraint("user_id"),
        ],
        "model_evaluation": [
            *_required(sa.Text, "model_version", "target", "algorithm"),
            *_required(sa.Boolean, "is_served"),
            *_required(sa.Text, "parameters"),
            *_required(sa.BigInteger, "k", "users", "pairs"),
            *_required(sa.Double, "share", "ndcg", "ndcg_low", "ndcg_high", "map", "precision", "recall"),
            *_required(sa.Double, "coverage", "novelty", "seconds"),
            *_required(sa.Boolean, "chosen"),
            *_required(sa.Text, "reason"),
            sa.PrimaryKeyConstraint("model_version", "target", "algorithm", "is_served"),
        ],
        "popular_products": [
            *_required(sa.BigInteger, "rank"),
            *_required(sa.Text, "product_id"),
            *_columns(sa.Text, "product_category"),
            *_required(sa.Double, "score"),
            *_required(sa.BigInteger, "users", "recent_users", "purchases"),
            *_required(sa.Double, "trend"),
            *_required(sa.BigInteger, "trending_rank"),
            *_required(sa.Double, "repeat_rate"),
            sa.PrimaryKeyConstraint("product_id"),
        ],
        "product_performance": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "product_id"),
            *_zero(sa.BigInteger, "view_count", "rank"),
            *_now("created_at"),
            *_columns(sa.Text, "product_category"),
            *_zero(sa.BigInteger, "add_to_carts", "purchases"),
            *_zero(_MONEY, "quantity", "revenue", "refunds", "net_revenue"),
            *_zero(sa.BigInteger, "users", "buyers"),
            *_zero(_PERCENT, "conversion_rate"),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("report_date", "product_id"),
        ],
        "person_predictions": [
            *_required(sa.Text, "user_id"),
            *_columns(sa.Double, "probability_7_days", "probability_28_days"),
            *_required(ARRAY(sa.Text), "reasons"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("user_id"),
        ],
        "product_recommendations": [
            *_required(sa.Text, "user_id", "product_id"),
            *_required(sa.Double, "confidence_score"),
            *_required(sa.BigInteger, "rank"),
            *_required(sa.Text, "algorithm", "reason"),
            *_columns(sa.Text, "reason_product_id"),
            *_required(sa.Text, "model_version"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("user_id", "product_id"),
        ],
        "product_windows": [
            *_required(_TIME, "window_start", "window_end"),
            *_required(sa.Date, "window_date"),
            *_required(sa.Text, "product_id"),
            *_columns(sa.Text, "product_category"),
            *_required(sa.BigInteger, "views", "add_to_carts", "purchases", "total_events", "distinct_users"),
            *_required(_TIME, "first_event_time", "last_event_time"),
            *_required(sa.Boolean, "is_final"),
            *_required(sa.BigInteger, "batch_id"),
            sa.PrimaryKeyConstraint("window_start", "product_id"),
        ],
        "products": [
            *_required(sa.Text, "product_id"),
            *_columns(sa.Text, "name", "category", "brand"),
            *_columns(sa.Numeric(18, 4), "price"),
            *_columns(sa.Text, "currency", "image", "link"),
            *_columns(sa.Boolean, "available"),
            sa.PrimaryKeyConstraint("product_id"),
        ],
        "published_models": [
            *_required(sa.Text, "model_version", "algorithm", "parameters", "reason", "metric_name"),
            *_columns(sa.Double, "metric", "baseline_metric"),
            *_required(sa.Text, "trained_on"),
            *_columns(sa.Date, "first_day", "last_day"),
            *_required(sa.BigInteger, "interactions", "users", "rows"),
            *_required(_TIME, "trained_at"),
            *_required(sa.Text, "buy_again", "made_from"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("model_version"),
        ],
        "published_parts": [
            *_required(sa.Text, "table_name"),
            *_required(sa.Date, "day"),
            *_required(sa.Text, "files"),
            *_required(sa.BigInteger, "version"),
            *_required(_TIME, "published_at"),
            sa.PrimaryKeyConstraint("table_name", "day"),
        ],
        "pseudonyms": [
            *_required(sa.Text, "kind", "id", "pseudonym"),
            sa.Column("made_on", sa.Date, nullable=False, server_default=sa.func.current_date()),
            sa.PrimaryKeyConstraint("kind", "id"),
            sa.UniqueConstraint("pseudonym"),
        ],
        "publications": [
            *_required(sa.Text, "asset", "stamp"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("asset"),
        ],
        "purchase_models": [
            *_required(sa.Text, "predicted", "model_version"),
            *_required(sa.Boolean, "accepted"),
            *_required(sa.Text, "reason"),
            *_columns(sa.Date, "last_day"),
            *_columns(sa.BigInteger, "examples", "buyers"),
            *_columns(
                sa.Double, "auc", "log_loss", "base_log_loss", "rule_log_loss", "lift", "calibration_error"
            ),
            *_columns(sa.Text, "model"),
            sa.PrimaryKeyConstraint("predicted"),
        ],
        "record_days": [
            *_required(sa.Date, "arrival_date"),
            *_required(sa.Text, "outcome", "rule", "field"),
            *_required(sa.BigInteger, "records"),
            sa.PrimaryKeyConstraint("arrival_date", "outcome", "rule", "field"),
        ],
        "rejected_samples": [
            *_required(sa.Date, "arrival_date"),
            *_required(sa.Text, "rule", "field"),
            *_columns(sa.Text, "rejected_value"),
            *_required(_TIME, "kafka_time"),
            *_required(sa.Text, "topic"),
            *_required(sa.Integer, "partition"),
            *_required(sa.BigInteger, "offset"),
            *_required(sa.Integer, "item"),
            sa.PrimaryKeyConstraint("arrival_date", "rule", "field", "topic", "partition", "offset", "item"),
        ],
        "rejected_counts": [
            *_required(_TIME, "hour"),
            *_required(sa.Text, "rule", "field", "rejected_by"),
            *_required(sa.BigInteger, "records", "received"),
            *_required(_PERCENT, "share"),
            sa.PrimaryKeyConstraint("hour", "rule", "field", "rejected_by"),
        ],
        "related_products": [
            *_required(sa.Text, "relation", "product_id"),
            *_required(ARRAY(sa.Text), "related_ids"),
            *_required(ARRAY(sa.Double), "scores"),
            *_columns(sa.BigInteger, "orders"),
            *_columns(ARRAY(sa.BigInteger), "together"),
            sa.PrimaryKeyConstraint("relation", "product_id"),
        ],
        "report_mails": [
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "recipient", "message_id"),
            *_now("sent_at"),
            sa.PrimaryKeyConstraint("report_date", "recipient"),
        ],
        "served_models": [
            *_required(sa.Text, "answers", "model_version"),
            *_columns(_TIME, "put_back_at"),
            *_now("served_since"),
            sa.PrimaryKeyConstraint("answers"),
        ],
        "stream_batches": [
            sa.Column("batch_id", sa.BigInteger, autoincrement=False),
            *_columns(_TIME, "watermark"),
            *_json("offsets"),
            *_now("recorded_at"),
            sa.PrimaryKeyConstraint("batch_id"),
        ],
        "stream_progress": [
            *_required(sa.Text, "query"),
            *_required(sa.BigInteger, "generation", "base_batch_id", "batch_id"),
            *_columns(_TIME, "watermark", "floor"),
            *_json("offsets", "alert_rules"),
            *_now("read_at"),
            *_columns(_TIME, "idle_until"),
            *_now("updated_at"),
            sa.PrimaryKeyConstraint("query"),
        ],
        "stream_status": [
            *_required(sa.Text, "query", "owner"),
            *_required(sa.BigInteger, "batch_id"),
            *_columns(_TIME, "watermark"),
            *_required(sa.BigInteger, "rows", "dropped_late"),
            *_json("lag"),
            *_columns(sa.Double, "latency_seconds", "rows_per_second"),
            *_columns(sa.Text, "error"),
            *_columns(_TIME, "lag_at", "batch_at", "due_at"),
            *_now("updated_at"),
            sa.PrimaryKeyConstraint("query"),
        ],
        "next_product_models": [
            *_required(sa.Text, "model_version", "trained_on"),
            *_required(_TIME, "trained_at"),
            *_required(sa.BigInteger, "parts", "sessions", "products", "targets"),
            *_columns(sa.Double, "hit_rate", "popular_hit_rate"),
            *_required(sa.BigInteger, "new_targets"),
            *_columns(sa.Double, "new_hit_rate"),
            *_required(sa.BigInteger, "other_targets"),
            *_columns(sa.Double, "other_hit_rate"),
            *_now("published_at"),
            sa.PrimaryKeyConstraint("model_version"),
        ],
        "next_product_parts": [
            *_required(sa.Text, "model_version"),
            *_required(sa.BigInteger, "part"),
            *_required(sa.Text, "content"),
            sa.PrimaryKeyConstraint("model_version", "part"),
        ],
        "notified_alerts": [
            *_required(sa.Text, "notified_id", "alert_id", "product_id", "kind"),
            *_required(sa.BigInteger, "sequence"),
            *_required(_TIME, "first_window_start", "last_window_end"),
            sa.PrimaryKeyConstraint("notified_id"),
        ],
        "user_segments": [
            sa.Column("id", sa.BigInteger, sa.Identity()),
            *_required(sa.Date, "report_date"),
            *_required(sa.Text, "user_id", "segment"),
            *_now("created_at"),
            *_zero(sa.BigInteger, "events", "views", "add_to_carts", "purchases"),
            *_zero(_MONEY, "revenue"),
            sa.CheckConstraint("segment IN ('buyer', 'window_shopper')", name="user_segments_segment_check"),
            sa.PrimaryKeyConstraint("id"),
            sa.UniqueConstraint("report_date", "user_id"),
        ],
    }


_INDEXES: tuple[tuple[str, str, tuple[str, ...], str | None], ...] = (
    ("alert_notifications", "pending", ("next_attempt_at",), "delivered_at IS NULL AND failed_at IS NULL"),
    ("carts", "last_activity_at", ("last_activity_at DESC", "cart_id"), None),
    ("carts", "last_activity_date", ("last_activity_date",), None),
    ("carts", "state_last_activity_at", ("state", "last_activity_at"), None),
    ("carts", "user_id", ("user_id",), None),
    ("carts", "value", ("value DESC", "cart_id"), None),
    ("clickstream_sessions", "campaign", ("campaign", "session_date"), "campaign IS NOT NULL"),
    ("clickstream_sessions", "end_time", ("end_time",), None),
    ("clickstream_sessions", "furthest_step", ("furthest_step", "total_events DESC", "session_id"), None),
    ("clickstream_sessions", "session_date", ("session_date",), None),
    ("clickstream_sessions", "total_events", ("total_events DESC", "session_id"), None),
    ("clickstream_sessions", "user_id", ("user_id",), None),
    ("customer_segments", "rfm_segment", ("report_date", "rfm_segment"), None),
    ("customer_segments", "user_id", ("user_id", "report_date"), None),
    ("flash_sale_alerts", "first_window_start", ("first_window_start",), None),
    ("flash_sale_alerts", "open", ("last_window_end",), "state = 'open'"),
    ("flash_sale_alerts", "product_id", ("product_id", "first_window_start"), None),
    ("identities", "user_id", ("user_id",), None),
    ("popular_products", "rank", ("rank",), None),
    ("popular_products", "trending_rank", ("trending_rank",), None),
    ("product_performance", "product_id", ("product_id",), None),
    ("product_performance", "report_date_rank", ("report_date", "rank"), None),
    ("product_recommendations", "user_id_rank", ("user_id", "rank"), None),
    ("products", "category", ("category",), None),
    ("product_windows", "batch_id", ("batch_id",), None),
    ("product_windows", "open", ("window_end",), "NOT is_final"),
    ("product_windows", "product_id", ("product_id", "window_start"), None),
    ("notified_alerts", "product_id", ("product_id", "last_window_end"), None),
    ("user_segments", "report_date", ("report_date",), None),
    ("user_segments", "segment", ("segment",), None),
    ("user_segments", "user_id", ("user_id", "report_date"), None),
)
"""Each index: its table, its name after the table's, its columns, and the condition of its rows."""


def upgrade() -> None:
    """Create the tables and their indexes."""
    for table, parts in _tables().items():
        op.create_table(table, *parts)
    for table, name, columns, where in _INDEXES:
        op.create_index(
            f"{table}_{name}",
            table,
            [sa.text(column) for column in columns],
            postgresql_where=sa.text(where) if where else None,
        )


def downgrade() -> None:
    """Drop the tables."""
    for table in _tables():
        op.drop_table(table)
