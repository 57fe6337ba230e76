"""Tables of predictions: the probability that a person buys."""

from clickstream_assets.catalogue.table import DATE, DOUBLE, STRING, STRINGS, Column, Table
from clickstream_assets.catalogue.who import PERSON

# Computed where it is used, and stored nowhere.
PERSON_PREDICTIONS = Table(
    "person_predictions",
    "one person who bought within a year or was there within 28 days",
    (
        Column("user_id", STRING, PERSON),
        Column("as_of", DATE, "The shop's day; what they did up to its end counts"),
        *(
            Column(
                f"probability_{days}_days",
                DOUBLE,
                f"Probability of a purchase within {days} days after it; null where no model is accepted",
                nullable=True,
            )
            for days in (7, 28)
        ),
        Column("reasons", STRINGS, "What speaks most for or against it, in words"),
        Column("model_version", STRING, "Version of the models"),
    ),
    key=("user_id",),
    in_lake=False,
)
