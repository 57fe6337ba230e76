"""Tables of the recommender: what it learns, how well, and which products it recommends."""

from clickstream_assets.catalogue.table import (
    BOOL,
    DATE,
    DOUBLE,
    DOUBLES,
    LONG,
    LONGS,
    STRING,
    STRINGS,
    TIMESTAMP,
    VECTOR,
    Column,
    Index,
    Lists,
    Served,
    Table,
)
from clickstream_assets.catalogue.who import PERSON

ALGORITHM_NAMES = ("blend", "als", "ease", "item_knn", "category", "buy_again", "trending", "popularity")
_ALGORITHM = "The algorithm"

_EVENTS_OF_TASTE = (
    Column("views", LONG, "Events of type view or click"),
    Column("add_to_carts", LONG, "Events of type add_to_cart"),
    Column("purchases", LONG, "Events of type purchase"),
    Column("first_time", TIMESTAMP, "First event"),
    Column("last_time", TIMESTAMP, "Last event"),
)

INTERACTION_DAYS = Table(
    "interaction_days",
    "one user and product that met on a day, whatever the user agrees to",
    (
        Column("event_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("product_id", STRING, "The product"),
        *_EVENTS_OF_TASTE,
    ),
    key=("event_date", "user_id", "product_id"),
    partition_by=("event_date",),
)

CONSENT_DAYS = Table(
    "consent_days",
    "one user who stated on a day whether they agree to being profiled",
    (
        Column("event_date", DATE, "The shop's day"),
        Column("user_id", STRING, PERSON),
        Column("agreed", TIMESTAMP, "Last event that states a yes", nullable=True),
        Column("refused", TIMESTAMP, "Last event that states a no", nullable=True),
    ),
    key=("event_date", "user_id"),
    partition_by=("event_date",),
)

INTERACTIONS = Table(
    "interactions",
    "one user and product that met within TRAINING_DAYS",
    (
        Column("user_id", STRING, PERSON),
        Column("product_id", STRING, "The product"),
        Column("strength", DOUBLE, "Sum of the events' weights: how much this says of taste"),
        *_EVENTS_OF_TASTE,
        Column("purchase_days", LONG, "Days with a purchase"),
        Column("first_purchase", TIMESTAMP, "First event of the first such day", nullable=True),
        Column("last_purchase", TIMESTAMP, "Last event of the last such day", nullable=True),
    ),
    key=("user_id", "product_id"),
)

USER_FACTORS = Table(
    "als_user_factors",
    "one user's vector in the factor model, to look at: recommendations solve it anew from what the user met",
    (
        Column("user_id", STRING, PERSON),
        Column("factors", VECTOR, "The vector"),
    ),
    key=("user_id",),
)

ITEM_FACTORS = Table(
    "als_item_factors",
    "one product's vector in the factor model",
    (
        Column("product_id", STRING, "The product"),
        Column("factors", VECTOR, "The vector"),
    ),
    key=("product_id",),
)

POPULAR_PRODUCTS = Table(
    "popular_products",
    "one product",
    (
        Column("rank", LONG, "Rank by score, from 1"),
        Column("product_id", STRING, "The product"),
        Column("product_category", STRING, "Its latest category", nullable=True),
        Column("score", DOUBLE, "Sum of the strengths of all shoppers' interactions"),
        Column("users", LONG, "Different shoppers who met it"),
        Column("recent_users", LONG, "Those of them who met it within TREND_DAYS"),
        Column("purchases", LONG, "Times it was bought"),
        Column("trend", DOUBLE, "Its share of recent shoppers over that of all; 1 is as ever"),
        Column("trending_rank", LONG, "Rank by score times trend, from 1"),
        Column(
            "repeat_rate",
            DOUBLE,
            "Share of its buyers who bought it on several days; where few bought it, drawn to its category's",
        ),
    ),
    key=("product_id",),
    served=Served(indexes=(Index(("rank",)), Index(("trending_rank",)))),
)

# A row has all of a product's others: as many rows as pairs would take ten times as long to publish.
RELATED_PRODUCTS = Table(
    "related_products",
    "one product and a relation that others are in to it",
    (
        Column(
            "relation",
            STRING,
            "That the same shoppers care for both (item_to_item), or that orders have both (bought_together)",
            values=("item_to_item", "bought_together"),
        ),
        Column("product_id", STRING, "The product"),
        Column("related_ids", STRINGS, "The others, the closest first"),
        Column(
            "scores",
            DOUBLES,
            "Of each, the cosine of the strengths of their shoppers' interactions (item_to_item), or their orders over "
            "the orders of the one and the square root of those of the other (bought_together)",
        ),
        Column("orders", LONG, "Orders with the product; null for item_to_item", nullable=True),
        Column("together", LONGS, "Of each, orders that have both; null for item_to_item", nullable=True),
    ),
    key=("relation", "product_id"),
    served=Served(),
    in_lake=False,
)

MODEL_EVALUATION = Table(
    "model_evaluation",
    "one algorithm, ranked on the future against all products for one target",
    (
        Column("model_version", STRING, "Version of the model that was evaluated"),
        Column(
            "target",
            STRING,
            "What is to be found: what is new to known shoppers (next), what shoppers without a history meet (new), or "
            "what known shoppers buy, repeats included (purchases)",
            values=("next", "new", "purchases"),
        ),
        Column("algorithm", STRING, _ALGORITHM, values=ALGORITHM_NAMES),
        Column("is_served", BOOL, "Whether it was served with these parameters when it was judged"),
        Column("parameters", STRING, "Its parameters, JSON"),
        Column("k", LONG, "Length of the ranked lists"),
        Column("users", LONG, "Users with something to find"),
        Column("pairs", LONG, "Pairs of user and product to find"),
        Column("share", DOUBLE, "Their share of all pairs in the part that is judged by"),
        Column("ndcg", DOUBLE, "Mean nDCG@k"),
        Column("ndcg_low", DOUBLE, "Lower end of its 95 % bootstrap interval"),
        Column("ndcg_high", DOUBLE, "Upper end of it"),
        Column("map", DOUBLE, "Mean average precision@k, divided by the number of relevant products"),
        Column("precision", DOUBLE, "Mean precision@k"),
        Column("recall", DOUBLE, "Mean recall@k"),
        Column("coverage", DOUBLE, "Share of all products that appear in some list"),
        Column("novelty", DOUBLE, "Mean -log2 of the share of users who had met a listed product"),
        Column("seconds", DOUBLE, "Training and ranking time"),
        Column("chosen", BOOL, "Whether this algorithm is to be published"),
        Column("reason", STRING, "Why it was or was not chosen"),
    ),
    key=("model_version", "target", "algorithm", "is_served"),
    served=Served(),
)

MODEL_PARAMETERS = Table(
    "model_parameters",
    "one search for parameters",
    (
        Column("last_day", DATE, "The newest day with an interaction that was looked at"),
        Column("started_from", STRING, "The settings that it started from, JSON"),
        Column("parameters", STRING, "What was found, JSON"),
        Column("fallback_exponent", DOUBLE, "Exponent of the trend in what unknown shoppers are shown"),
        Column("interactions", LONG, "Rows of `interaction_days` on TRAINING_DAYS"),
        Column("users", LONG, "Users who judged"),
        Column("ndcg_before", DOUBLE, "Mean nDCG of the blend by the settings, on the validation cuts"),
        Column("ndcg", DOUBLE, "The same by what was found"),
        Column("trials", STRING, "All that was tried: changes, nDCG and whether they were taken, JSON"),
    ),
    key=("last_day", "started_from", "interactions"),
)

MODEL_LOOKS = Table(
    "model_looks",
    "one look at whether a personal algorithm is better than what is served",
    (
        Column("look", LONG, "Its number, from 1"),
        Column("judged_until", TIMESTAMP, "The newest interaction that was judged by"),
        Column("significance", DOUBLE, "The chance of a false alarm that it was allowed"),
        Column("served", STRING, "What was served before", nullable=True),
        Column("chosen", STRING, "The algorithm that was chosen"),
    ),
    key=("look",),
)

PRODUCT_RECOMMENDATIONS = Table(
    "product_recommendations",
    "one product recommended to one user",
    (
        Column("user_id", STRING, PERSON),
        Column("product_id", STRING, "The recommended product"),
        Column("rank", LONG, "Rank in the user's list, from 1"),
        Column(
            "confidence_score",
            DOUBLE,
            "The algorithm's score when the list was made; comparable among one user's rows",
        ),
        Column("algorithm", STRING, _ALGORITHM, values=ALGORITHM_NAMES),
        Column("reason", STRING, "Why, in words that can be shown to the shopper"),
        Column(
            "reason_product_id", STRING, "The product of their own that the reason speaks of", nullable=True
        ),
        Column(
            "model_version",
            STRING,
            "Version of the model that the list came from; it stays while later ones say the same",
        ),
    ),
    key=("user_id", "product_id"),
    served=Served(
        profiles=True,
        stamp="published_at",
        order=("user_id", "product_id", "confidence_score"),
        indexes=(Index(("user_id", "rank"), name="user_id_rank"),),
        lists=Lists("user_id", beside=("confidence_score", "model_version")),
    ),
)

MET_PRODUCTS = Table(
    "met_products",
    "one user with an interaction",
    (
        Column("user_id", STRING, PERSON),
        Column("product_ids", STRINGS, "All products that they have met, in order"),
    ),
    key=("user_id",),
    served=Served(profiles=True),
    in_lake=False,
)

BOUGHT_PRODUCTS = Table(
    "bought_products",
    "one user with a purchase",
    (
        Column("user_id", STRING, PERSON),
        Column("product_ids", STRINGS, "All products that they have bought, in order"),
        Column("days", LONGS, "Of each, days with a purchase"),
        Column("last_times", LONGS, "Of each, when it was bought last, in microseconds since 1970"),
    ),
    key=("user_id",),
    served=Served(profiles=True),
    in_lake=False,
)

PROFILING_REFUSALS = Table(
    "profiling_refusals",
    "one user who has said no to being profiled: nothing says what they are like, until they agree",
    (
        Column("user_id", STRING, PERSON),
        Column("refused", TIMESTAMP, "Last event that states a no"),
        Column(
            "agreed_on",
            DATE,
            "First of the shop's days with an event after it that states a yes; null for who does not agree",
            nullable=True,
        ),
    ),
    key=("user_id",),
    served=Served(),
    in_lake=False,
)

PUBLISHED_MODELS = Table(
    "published_models",
    "one model that was put before the shoppers",
    (
        Column("model_version", STRING, "Version of the model"),
        Column("algorithm", STRING, _ALGORITHM, values=ALGORITHM_NAMES),
        Column("parameters", STRING, "Its parameters, JSON"),
        Column("reason", STRING, "Why this algorithm was chosen"),
        Column("metric_name", STRING, "The metric that the choice was made by"),
        Column("metric", DOUBLE, "Its value for this model", nullable=True),
        Column("baseline_metric", DOUBLE, "Its value for popularity, on the same split", nullable=True),
        Column("trained_on", STRING, "The last ingest batch of `events` that it was trained on"),
        Column("first_day", DATE, "First of the days that it was trained on", nullable=True),
        Column("last_day", DATE, "Last of them: the newest day with an interaction", nullable=True),
        Column("interactions", LONG, "Rows of `interaction_days` on these days"),
        Column("users", LONG, "Users with recommendations"),
        Column("rows", LONG, "Recommendations"),
        Column("trained_at", TIMESTAMP, "When the data of its training were read"),
        Column("buy_again", STRING, "How soon and how often products are bought again, JSON"),
        Column("made_from", STRING, "Versions of the lake's tables, by which its lists are made again, JSON"),
    ),
    key=("model_version",),
    served=Served(stamp="published_at"),
    in_lake=False,
)

# Apart from published_models, because a model that is served again after another one keeps the row of its first time.
SERVED_MODELS = Table(
    "served_models",
    "one kind of answer: lists that were made before, or the product that comes next",
    (
        Column(
            "answers",
            STRING,
            "recommendations or next_product",
            values=("recommendations", "next_product"),
        ),
        Column(
            "model_version", STRING, "The model of published_models, or next_product_models, that gives them"
        ),
        Column(
            "put_back_at",
            TIMESTAMP,
            "When a person published this version again; null where a training did",
            nullable=True,
        ),
    ),
    key=("answers",),
    served=Served(stamp="served_since"),
    in_lake=False,
)
