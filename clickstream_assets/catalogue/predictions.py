"""Tables of predictions: the models of purchases, how good they are, and what they say of each person."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    DOUBLE,
    LONG,
    STRING,
    STRINGS,
    Column,
    Served,
    Table,
)
from clickstream_assets.catalogue.who import PERSON

PREDICTED = ("purchase_in_7_days", "purchase_in_28_days", "purchase_in_session")

PURCHASE_MODELS = Table(
    "purchase_models",
    "one thing that is predicted, by the model that was trained last",
    (
        Column(
            "predicted",
            STRING,
            "That a person buys within 7 or 28 days, or that a session does, at each of its events",
            values=PREDICTED,
        ),
        Column("model_version", STRING, "Version of the model"),
        Column("accepted", BOOL, "Whether it is better than the base rate and a simple rule, and so is used"),
        Column("reason", STRING, "Why it is, or is not"),
        Column("last_day", DATE, "Last of the days that it was made from, which is over", nullable=True),
        Column(
            "examples", LONG, "Examples that it was judged on, of a time after all it had seen", nullable=True
        ),
        Column("buyers", LONG, "Those of them that bought", nullable=True),
        Column(
            "auc", DOUBLE, "Chance that one that bought has a higher probability than another", nullable=True
        ),
        Column("log_loss", DOUBLE, "Mean negative log-likelihood, in nats", nullable=True),
        Column("base_log_loss", DOUBLE, "The same of the base rate", nullable=True),
        Column(
            "rule_log_loss",
            DOUBLE,
            "The same of the rule: by the time since the last purchase, or whether the session has a cart",
            nullable=True,
        ),
        Column(
            "lift",
            DOUBLE,
            "Share of buyers in the tenth with the highest probabilities, over that in all",
            nullable=True,
        ),
        Column(
            "calibration_error",
            DOUBLE,
            "Greatest difference, among tenths by probability, of the mean probability and the share of buyers",
            nullable=True,
        ),
        Column(
            "model",
            STRING,
            "Its curves, as JSON; their sum is the log-odds. Null if not accepted",
            nullable=True,
        ),
    ),
    key=("predicted",),
    served=Served(),
)

# Neither the day nor the model's version is said here: what stays the same is not written again.
PERSON_PREDICTIONS = Table(
    "person_predictions",
    "one person who bought within a year or was there within 28 days",
    (
        Column("user_id", STRING, PERSON),
        *(
            Column(
                f"probability_{days}_days",
                DOUBLE,
                f"Probability of a purchase within {days} days after the models' last_day; null where none is accepted",
                nullable=True,
                sort=True,
            )
            for days in (7, 28)
        ),
        Column("reasons", STRINGS, "What speaks most for or against it, in words"),
    ),
    key=("user_id",),
    served=Served(profiles=True, stamp="published_at"),
)
