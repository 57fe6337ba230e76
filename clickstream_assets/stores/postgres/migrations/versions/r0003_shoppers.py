"""What shoppers do: more of sessions, carts, customer segments, cohorts, attribution."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MONEY = sa.Numeric(18, 4)
_TIME = sa.DateTime(timezone=True)


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, primary_key=primary_key)


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def upgrade() -> None:
    """Add the sessions' columns; create the tables and their indexes."""
    op.add_column("clickstream_sessions", _text("furthest_step", nullable=True))
    op.add_column("clickstream_sessions", _text("campaign", nullable=True))
    op.add_column("clickstream_sessions", sa.Column("client_session_ids", ARRAY(sa.Text)))
    # The counts that are there say it; campaigns and ids come when the days are published anew.
    op.execute(
        "UPDATE clickstream_sessions SET furthest_step = CASE WHEN purchases > 0 THEN 'purchase' "
        "WHEN add_to_carts > 0 THEN 'add_to_cart' WHEN views + clicks > 0 THEN 'view' ELSE 'none' END"
    )
    op.alter_column("clickstream_sessions", "furthest_step", nullable=False)
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
    op.create_index("user_segments_user_id", "user_segments", ["user_id", "report_date"])

    op.create_table(
        "carts",
        _text("cart_id", primary_key=True),
        _text("user_id"),
        _text("state"),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("last_activity_at", _TIME, nullable=False),
        _count("items"),
        _count("quantity"),
        sa.Column("value", _MONEY, nullable=False),
        _text("currency", nullable=True),
        sa.Column("product_ids", ARRAY(sa.Text), nullable=False),
        sa.Column("abandoned_at", _TIME),
        sa.Column("purchased_at", _TIME),
        _count("seconds_to_purchase", nullable=True),
        _text("order_id", nullable=True),
    )
    op.create_index("carts_user_id", "carts", ["user_id"])
    op.create_index("carts_state_last_activity_at", "carts", ["state", "last_activity_at"])
    op.create_index("carts_last_activity_at", "carts", [sa.text("last_activity_at DESC"), "cart_id"])
    op.create_index("carts_value", "carts", [sa.text("value DESC"), "cart_id"])

    op.create_table(
        "customer_segments",
        sa.Column("report_date", sa.Date, primary_key=True),
        _text("user_id", primary_key=True),
        _text("rfm_segment", nullable=True),
        _count("recency_days", nullable=True),
        _count("frequency"),
        sa.Column("monetary", _MONEY, nullable=False),
        _count("r_score", nullable=True),
        _count("f_score", nullable=True),
        _count("m_score", nullable=True),
        _count("abandoned_carts"),
        sa.Column("abandoned_value", _MONEY, nullable=False),
    )
    op.create_index("customer_segments_user_id", "customer_segments", ["user_id", "report_date"])
    op.create_index("customer_segments_rfm_segment", "customer_segments", ["report_date", "rfm_segment"])

    op.create_table(
        "customer_segment_days",
        sa.Column("report_date", sa.Date, primary_key=True),
        sa.Column("as_of", _TIME, nullable=False),
        _count("events"),
        _text("fingerprint"),
    )

    op.create_table(
        "cohort_retention",
        sa.Column("cohort_week", sa.Date, primary_key=True),
        sa.Column("weeks_since", sa.BigInteger, primary_key=True, autoincrement=False),
        _count("users"),
        _count("active_users"),
        sa.Column("retention_rate", sa.Double, nullable=False),
    )

    op.create_table(
        "campaign_attribution",
        sa.Column("report_date", sa.Date, primary_key=True),
        _text("model", primary_key=True),
        _text("campaign", primary_key=True),
        sa.Column("orders", _MONEY, nullable=False),
        sa.Column("revenue", _MONEY, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables and the sessions' columns."""
    op.drop_index("user_segments_user_id")
    for table in (
        "campaign_attribution",
        "cohort_retention",
        "customer_segment_days",
        "customer_segments",
        "carts",
    ):
        op.drop_table(table)
    for column in ("client_session_ids", "campaign", "furthest_step"):
        op.drop_column("clickstream_sessions", column)
