"""What the streams keep: windows, alerts and their notifications, progress. And what shoppers have met, and by which
model they are served.

`flash_sale_alerts` starts with `id, window_start, window_end, product_id, views, purchases, detected_at`, because
readers of an older table of this name select by position.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key)


def _count(name: str, *, nullable: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, server_default=default)


def _time(
    name: str, *, nullable: bool = False, primary_key: bool = False, default: bool = False
) -> sa.Column[datetime]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=nullable,
        primary_key=primary_key,
        server_default=sa.func.now() if default else None,
    )


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=False, server_default="{}")


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "product_windows",
        _time("window_start", primary_key=True),
        _time("window_end"),
        sa.Column("window_date", sa.Date, nullable=False),
        _text("product_id", primary_key=True),
        _text("product_category", nullable=True),
        _count("views"),
        _count("add_to_carts"),
        _count("purchases"),
        _count("total_events"),
        _count("distinct_users"),
        _time("first_event_time"),
        _time("last_event_time"),
        sa.Column("is_final", sa.Boolean, nullable=False),
        _count("batch_id"),
    )
    op.create_index("product_windows_product_id", "product_windows", ["product_id", "window_start"])
    op.create_index("product_windows_batch_id", "product_windows", ["batch_id"])
    op.create_index(
        "product_windows_open", "product_windows", ["window_end"], postgresql_where=sa.text("NOT is_final")
    )

    op.create_table(
        "flash_sale_alerts",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _time("window_start"),
        _time("window_end"),
        _text("product_id"),
        _count("views"),
        _count("purchases"),
        _time("detected_at", default=True),
        _text("alert_id"),
        _text("product_category", nullable=True),
        _text("state"),
        sa.Column("conversion", sa.Double, nullable=False),
        _time("first_window_start"),
        _time("last_window_end"),
        _count("windows"),
        _time("resolved_at", nullable=True),
        sa.Column("usual_views", sa.Double),
        sa.Column("unusualness", sa.Double),
        sa.Column("is_confirmed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.CheckConstraint("state IN ('open', 'resolved')", name="flash_sale_alerts_state_check"),
        sa.UniqueConstraint("alert_id", name="flash_sale_alerts_alert_id_key"),
    )
    op.create_index("flash_sale_alerts_product_id", "flash_sale_alerts", ["product_id", "first_window_start"])
    op.create_index("flash_sale_alerts_first_window_start", "flash_sale_alerts", ["first_window_start"])
    op.create_index(
        "flash_sale_alerts_open",
        "flash_sale_alerts",
        ["last_window_end"],
        postgresql_where=sa.text("state = 'open'"),
    )

    # What has been told of each alert. `told_id` stays when late events move the start of an episode, and with it
    # the alert's own id; it is what receivers know the alert by.
    op.create_table(
        "told_alerts",
        _text("told_id", primary_key=True),
        _text("alert_id"),
        _text("product_id"),
        _text("kind"),
        _count("sequence"),
        _time("first_window_start"),
        _time("last_window_end"),
    )
    op.create_index("told_alerts_product_id", "told_alerts", ["product_id", "last_window_end"])

    # An outbox: one row per message and sink, written with the windows that it follows from, sent afterwards.
    op.create_table(
        "alert_notifications",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _text("told_id"),
        _count("sequence"),
        _text("kind"),
        _text("sink"),
        _json("payload"),
        _time("created_at", default=True),
        _time("delivered_at", nullable=True),
        _time("failed_at", nullable=True),
        _count("attempts", default="0"),
        _time("next_attempt_at", default=True),
        _text("last_error", nullable=True),
        sa.CheckConstraint(
            "kind IN ('opened', 'updated', 'resolved', 'withdrawn')", name="alert_notifications_kind_check"
        ),
        sa.UniqueConstraint(
            "told_id", "sequence", "sink", name="alert_notifications_told_id_sequence_sink_key"
        ),
    )
    op.create_index(
        "alert_notifications_pending",
        "alert_notifications",
        ["next_attempt_at"],
        postgresql_where=sa.text("delivered_at IS NULL AND failed_at IS NULL"),
    )

    op.create_table(
        "stream_progress",
        _text("query", primary_key=True),
        _count("generation"),
        _count("base_batch_id"),
        _count("batch_id"),
        _time("watermark", nullable=True),
        _time("floor", nullable=True),
        _text("topic"),
        _json("offsets"),
        # The rules that the alerts were found with; other settings find them all again.
        _json("alert_rules"),
        # When records were last read, and up to where windows were closed because none came any more.
        _time("read_at", default=True),
        _time("idle_until", nullable=True),
        _time("updated_at", default=True),
    )

    # How far the stream had come with each of its batches of the last days: windows that end by a batch's watermark
    # hold what there is up to its offsets, whatever has been read since.
    op.create_table(
        "stream_batches",
        sa.Column("batch_id", sa.BigInteger, primary_key=True, autoincrement=False),
        _time("watermark", nullable=True),
        _json("offsets"),
        _time("recorded_at", default=True),
    )

    op.create_table(
        "stream_status",
        _text("query", primary_key=True),
        _text("owner"),
        _count("batch_id"),
        _time("watermark", nullable=True),
        _count("rows"),
        _count("dropped_late"),
        _json("lag"),
        sa.Column("latency_seconds", sa.Double),
        sa.Column("rows_per_second", sa.Double),
        _text("error", nullable=True),
        _time("updated_at", default=True),
    )

    op.create_table(
        "met_products",
        _text("user_id", primary_key=True),
        sa.Column("product_ids", ARRAY(sa.Text), nullable=False),
    )
    # What is known of those who are served already; the next publication brings the whole.
    op.execute(
        "INSERT INTO met_products SELECT user_id, coalesce(array_agg(DISTINCT reason_product_id) "
        "FILTER (WHERE reason_product_id IS NOT NULL), '{}') FROM product_recommendations GROUP BY user_id"
    )
    op.create_table(
        "served_models",
        _text("answers", primary_key=True),
        _text("model_version"),
        _time("served_since", default=True),
    )
    op.execute(
        "INSERT INTO served_models SELECT 'recommendations', model_version, published_at "
        "FROM published_models ORDER BY published_at DESC LIMIT 1"
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "served_models",
        "met_products",
        "stream_status",
        "stream_batches",
        "stream_progress",
        "alert_notifications",
        "told_alerts",
        "flash_sale_alerts",
        "product_windows",
    ):
        op.drop_table(table)
