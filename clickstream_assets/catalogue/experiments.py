"""Tables of experiments: who was shown what, and what came of it by arm."""

from dataclasses import replace

from clickstream_assets.catalogue.models import PRODUCT_RECOMMENDATIONS
from clickstream_assets.catalogue.raw import ERASED_RECORDS, RAW_EVENTS, REJECTED_PRODUCTS
from clickstream_assets.catalogue.table import (
    DATE,
    DOUBLE,
    LONG,
    MONEY_SUM,
    STRING,
    STRINGS,
    TIMESTAMP,
    Column,
    Lists,
    Served,
    Table,
)

DECISIONS = ("control", "undecided", "better", "worse", "mismatched")

RAW_EXPOSURES = replace(
    RAW_EVENTS, name="raw_exposures", grain="one record of KAFKA_EXPOSURES_TOPIC, its bytes as they came"
)

REJECTED_EXPOSURES = replace(
    REJECTED_PRODUCTS,
    name="rejected_exposures",
    grain="one record of KAFKA_EXPOSURES_TOPIC that is no exposure",
)

_EXPERIMENT = Column("experiment", STRING, "The experiment")
_ARM = Column("arm", STRING, "The arm of it")

ERASED_EXPOSURES = replace(
    ERASED_RECORDS,
    name="erased_exposures",
    grain="one record of KAFKA_EXPOSURES_TOPIC of a person who was erased: where it was, and nothing of what it said",
    columns=tuple(
        column for column in ERASED_RECORDS.columns if column.name not in ("kafka_time", "event_date")
    ),
)

EXPERIMENT_EXPOSURES = Table(
    "experiment_exposures",
    "one answer of an experiment: who was shown which products",
    (
        *(RAW_EVENTS.by_name[name] for name in ("topic", "partition", "offset", "batch")),
        Column("exposure_id", STRING, "The API's id of the answer"),
        _EXPERIMENT,
        _ARM,
        Column("unit", STRING, "Whom it was for: a person, as they were known when they asked"),
        Column("products", STRINGS, "The products that were shown, best first"),
        Column("exposed_at", TIMESTAMP, "Time of the answer"),
        Column("model_version", STRING, "The model of the published lists", nullable=True),
        Column("moment_version", STRING, "The model that says what comes next", nullable=True),
    ),
    key=("topic", "partition", "offset"),
    partition_by=("experiment",),
)


def _bounds(name: str, about: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_low", DOUBLE, f"{about}: lower bound, 95 %", nullable=True),
        Column(f"{name}_high", DOUBLE, f"{about}: upper bound, 95 %", nullable=True),
    )


def _measure(name: str, about: str, difference: str) -> tuple[Column, ...]:
    return (
        Column(name, DOUBLE, f"{about}; null without judged units", nullable=True),
        *_bounds(name, about),
        Column(f"{name}_difference", DOUBLE, f"The same less the control's; {difference}", nullable=True),
        *_bounds(f"{name}_difference", "The difference"),
    )


EXPERIMENT_RESULTS = Table(
    "experiment_results",
    "one arm of an experiment: who was in it and what they did",
    (
        _EXPERIMENT,
        _ARM,
        Column("place", LONG, "Its place among the arms, from 1; the first is the control"),
        Column("serves", STRING, "What it answers with"),
        Column("share", DOUBLE, "Its share of all units"),
        Column("metric", STRING, "What decides: click_through, conversion or revenue"),
        Column("window_hours", LONG, "Hours from the first exposure on in which what a unit does counts"),
        Column("as_of", TIMESTAMP, "Time of the newest event that counts; null without any", nullable=True),
        Column("exposures", LONG, "Answers of the arm"),
        Column("units", LONG, "Persons whose first exposure was in the arm, without those who refused"),
        Column("units_of_several_arms", LONG, "Those of them who were in another arm later"),
        Column("judged_units", LONG, "Those of them whose window is over: what follows is of these"),
        Column("clicked_units", LONG, "Those who viewed or clicked a product after it was shown to them"),
        *_measure("click_through", "Share of judged units that clicked", "Newcombe's interval"),
        Column("converted_units", LONG, "Those who bought something after the first exposure"),
        *_measure("conversion", "Share of judged units that bought", "Newcombe's interval"),
        Column("revenue", MONEY_SUM, "What they paid, in the shop's currency"),
        *_measure("revenue_per_unit", "Revenue of a judged unit", "Welch's interval"),
        Column(
            "difference_low",
            DOUBLE,
            "Difference of `metric` to the control: lower bound that holds at all looks together, 95 %",
            nullable=True,
        ),
        Column("difference_high", DOUBLE, "The same: upper bound", nullable=True),
        Column("p_value", DOUBLE, "Of no difference, valid at whatever look; null before any", nullable=True),
        Column(
            "decision",
            STRING,
            "control; undecided; better or worse than the control, beyond what looking often can bring about; or "
            "mismatched: the arms' sizes are not those of their shares, so nothing follows",
            values=DECISIONS,
        ),
        Column("decided_on", DATE, "Day (UTC) whose units first decided it", nullable=True),
        Column("sizes_p_value", DOUBLE, "Of the arms' sizes being those of their shares", nullable=True),
    ),
    key=("experiment", "arm"),
    served=Served(stamp="published_at"),
)

EXPERIMENT_RECOMMENDATIONS = Table(
    "experiment_recommendations",
    "one product recommended to one user by an algorithm that an arm of an experiment serves",
    (
        Column("lists_of", STRING, "The algorithm whose list it is"),
        *PRODUCT_RECOMMENDATIONS.columns,
    ),
    key=("lists_of", "user_id", "product_id"),
    served=Served(profiles=True, lists=Lists("user_id", beside=("confidence_score", "model_version"))),
    in_lake=False,
)
