"""The daily reports, and the tables that they are made of.

`daily_summary`, `product_performance` and `category_conversion` start with the columns of older tables of these
names, because readers of those select by position. What is new has defaults, so that a writer who knows only the
older columns goes on working.
"""

from datetime import date, datetime
from decimal import Decimal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True)


def _day() -> sa.Column[date]:
    return sa.Column("report_date", sa.Date, nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def _money(name: str) -> sa.Column[Decimal]:
    return sa.Column(name, sa.Numeric(18, 4), nullable=False, server_default="0")


def _percent(name: str, *, nullable: bool = False) -> sa.Column[Decimal]:
    return sa.Column(name, sa.Numeric(18, 2), nullable=nullable, server_default=None if nullable else "0")


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    """Create the tables and their indexes."""
    op.create_table(
        "daily_summary",
        _id(),
        _day(),
        _count("total_events"),
        _count("buyer_count"),
        _count("window_shopper_count"),
        _percent("buyer_rate"),
        _now("generated_at"),
        _count("users"),
        _count("sessions"),
        _count("bounced_sessions"),
        _percent("bounce_rate"),
        _count("views"),
        _count("add_to_carts"),
        _count("purchases"),
        _count("orders"),
        _money("revenue"),
        sa.Column("average_order_value", sa.Numeric(18, 4)),
        _count("converted_sessions"),
        _percent("conversion_rate"),
        _count("bot_events"),
        _count("bot_sessions"),
        sa.Column("currencies", ARRAY(sa.Text)),
        sa.UniqueConstraint("report_date", name="daily_summary_report_date_key"),
    )
    op.create_table(
        "product_performance",
        _id(),
        _day(),
        _text("product_id"),
        _count("view_count"),
        _count("rank"),
        _now("created_at"),
        _text("product_category", nullable=True),
        _count("add_to_carts"),
        _count("purchases"),
        _count("quantity"),
        _money("revenue"),
        _count("users"),
        _count("buyers"),
        _percent("conversion_rate"),
        sa.UniqueConstraint(
            "report_date", "product_id", name="product_performance_report_date_product_id_key"
        ),
    )
    op.create_index("product_performance_report_date_rank", "product_performance", ["report_date", "rank"])
    op.create_index("product_performance_product_id", "product_performance", ["product_id"])
    op.create_table(
        "category_conversion",
        _id(),
        _day(),
        _text("category"),
        _count("views"),
        _count("purchases"),
        _percent("conversion_rate"),
        _now("created_at"),
        _count("add_to_carts"),
        _money("revenue"),
        _count("users"),
        sa.UniqueConstraint("report_date", "category", name="category_conversion_report_date_category_key"),
    )
    op.create_table(
        "funnel",
        sa.Column("report_date", sa.Date, primary_key=True),
        sa.Column("dimension", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("step", sa.Text, primary_key=True),
        sa.Column("step_number", sa.Integer, nullable=False),
        _count("users"),
        _percent("conversion_from_previous", nullable=True),
        _percent("conversion_from_first"),
    )
    op.create_table(
        "daily_report",
        sa.Column("report_date", sa.Date, primary_key=True),
        sa.Column("generated_at", sa.DateTime(timezone=True), nullable=False),
        _text("report"),
        _text("made_from", nullable=True),
    )
    # Which report went to whom, so that none goes twice.
    op.create_table(
        "report_mails",
        sa.Column("report_date", sa.Date, primary_key=True),
        sa.Column("recipient", sa.Text, primary_key=True),
        _text("message_id"),
        _now("sent_at"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "report_mails",
        "daily_report",
        "funnel",
        "category_conversion",
        "product_performance",
        "daily_summary",
    ):
        op.drop_table(table)
