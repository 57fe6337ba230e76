"""The served tables.

`clickstream_sessions` starts with `session_id, total_events`, and `user_segments` with `id, report_date,
user_id, segment, created_at`, because readers of older tables of these names select by position.
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MONEY = sa.Numeric(18, 4)


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key)


def _count(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=default)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "clickstream_sessions",
        _text("session_id", primary_key=True),
        _count("total_events"),
        sa.Column("session_date", sa.Date, nullable=False),
        _text("user_id"),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=False),
        _count("duration_seconds"),
        _count("views"),
        _count("clicks"),
        _count("add_to_carts"),
        _count("remove_from_carts"),
        _count("purchases"),
        _count("searches"),
        _count("distinct_products"),
        _text("entry_product_id", nullable=True),
        _text("exit_product_id", nullable=True),
        sa.Column("revenue", _MONEY, nullable=False),
        sa.Column("is_bot", sa.Boolean, nullable=False),
        _text("bot_reason", nullable=True),
    )
    op.create_index(
        "clickstream_sessions_total_events",
        "clickstream_sessions",
        [sa.text("total_events DESC"), "session_id"],
    )
    op.create_index("clickstream_sessions_session_date", "clickstream_sessions", ["session_date"])
    op.create_index("clickstream_sessions_user_id", "clickstream_sessions", ["user_id"])

    op.create_table(
        "user_segments",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("report_date", sa.Date, nullable=False),
        _text("user_id"),
        _text("segment"),
        _now("created_at"),
        # The counts have defaults so that a writer who knows only the columns above goes on working.
        _count("events", "0"),
        _count("views", "0"),
        _count("add_to_carts", "0"),
        _count("purchases", "0"),
        sa.Column("revenue", _MONEY, nullable=False, server_default="0"),
        sa.CheckConstraint("segment IN ('buyer', 'window_shopper')", name="user_segments_segment_check"),
        sa.UniqueConstraint("report_date", "user_id", name="user_segments_report_date_user_id_key"),
    )
    op.create_index("user_segments_report_date", "user_segments", ["report_date"])
    op.create_index("user_segments_segment", "user_segments", ["segment"])

    op.create_table(
        "product_recommendations",
        _text("user_id", primary_key=True),
        _text("product_id", primary_key=True),
        sa.Column("confidence_score", sa.Double, nullable=False),
        _count("rank"),
        _text("algorithm"),
        _text("reason"),
        _text("reason_product_id", nullable=True),
        _text("model_version"),
        _now("published_at"),
    )
    op.create_index("product_recommendations_user_id_rank", "product_recommendations", ["user_id", "rank"])

    op.create_table(
        "popular_products",
        _count("rank"),
        _text("product_id", primary_key=True),
        _text("product_category", nullable=True),
        sa.Column("score", sa.Double, nullable=False),
        _count("users"),
        _count("purchases"),
    )
    op.create_index("popular_products_rank", "popular_products", ["rank"])

    op.create_table(
        "model_evaluation",
        _text("model_version", primary_key=True),
        _text("algorithm", primary_key=True),
        _count("k"),
        _count("users"),
        sa.Column("ndcg", sa.Double, nullable=False),
        sa.Column("map", sa.Double, nullable=False),
        sa.Column("precision", sa.Double, nullable=False),
        sa.Column("recall", sa.Double, nullable=False),
        sa.Column("coverage", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("chosen", sa.Boolean, nullable=False),
        _text("reason"),
    )

    op.create_table(
        "published_models",
        _text("model_version", primary_key=True),
        _text("algorithm"),
        _text("reason"),
        _text("metric_name"),
        sa.Column("metric", sa.Double),
        sa.Column("baseline_metric", sa.Double),
        _text("trained_on"),
        _count("users"),
        _count("rows"),
        _now("published_at"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "published_models",
        "model_evaluation",
        "popular_products",
        "product_recommendations",
        "user_segments",
        "clickstream_sessions",
    ):
        op.drop_table(table)
