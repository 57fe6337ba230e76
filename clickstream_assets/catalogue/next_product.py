"""Tables of the model that says which product a visitor goes to next."""

from clickstream_assets.catalogue.table import DOUBLE, LONG, STRING, TIMESTAMP, Column, Served, Table

_LIST = "the list of 20 products"

NEXT_PRODUCT_MODELS = Table(
    "next_product_models",
    "one model of the product that a visitor goes to next",
    (
        Column("model_version", STRING, "Version of the model"),
        Column("trained_on", STRING, "The last ingest batch of `events` that it was trained on"),
        Column("trained_at", TIMESTAMP, "When it was trained"),
        Column("parts", LONG, "Rows of next_product_parts that it is kept in"),
        Column("sessions", LONG, "Sessions that it looks for neighbours in"),
        Column("products", LONG, "Products that it knows"),
        Column(
            "targets", LONG, "Next products that it was judged on, event by event, after a moment's training"
        ),
        Column("hit_rate", DOUBLE, f"Share of them that were in {_LIST}", nullable=True),
        Column("popular_hit_rate", DOUBLE, "Share of them among the 20 most popular products", nullable=True),
        Column("new_targets", LONG, "Targets of visitors who had not been there before that moment"),
        Column("new_hit_rate", DOUBLE, f"Share of these that were in {_LIST}", nullable=True),
        Column("other_targets", LONG, "Targets that are another product than the visitor's newest"),
        Column("other_hit_rate", DOUBLE, f"Share of these that were in {_LIST}", nullable=True),
    ),
    key=("model_version",),
    served=Served(stamp="published_at"),
)

NEXT_PRODUCT_PARTS = Table(
    "next_product_parts",
    "one part of a written model",
    (
        Column("model_version", STRING, "Version of the model"),
        Column("part", LONG, "Place of the part, from 1"),
        Column("content", STRING, "Up to 750,000 bytes of the compressed arrays, in Base64"),
    ),
    key=("model_version", "part"),
    served=Served(),
)
