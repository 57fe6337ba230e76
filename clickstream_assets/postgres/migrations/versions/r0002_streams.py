"""What the streams keep: windows, alerts and their notifications, progress.

`flash_sale_alerts` starts with `id, window_start, window_end, product_id, views, purchases, detected_at`, because
readers of an older table of this name select by position.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

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
        _time("updated_at", default=True),
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


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "stream_status",
        "stream_progress",
        "alert_notifications",
        "told_alerts",
        "flash_sale_alerts",
        "product_windows",
    ):
        op.drop_table(table)
