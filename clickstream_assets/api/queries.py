"""The SQL of the API: read-only, on a connection that the caller holds.

A list of one served table needs no query of its own: `listing` pages through it with `page_of`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, LiteralString, NamedTuple, Self

from psycopg import Connection, sql
from psycopg.rows import DictRow

from clickstream_assets.catalogue import (
    ACTIVITY_SEGMENTS,
    CUSTOMER_SEGMENTS,
    EXPERIMENT_RESULTS,
    PRODUCT_PERFORMANCE,
    PRODUCTS,
    SERVED_TABLES,
    USER_SEGMENTS,
    who,
)
from clickstream_assets.catalogue.units import percent
from clickstream_assets.recommender.bought import Bought
from clickstream_assets.stores.postgres.reports import with_names

SUMMARY_FIGURES = (
    *("total_events", "users", "buyer_count", "window_shopper_count", "buyer_rate", "sessions"),
    *("orders", "revenue", "refunds", "net_revenue", "average_order_value", "conversion_rate"),
)
"""The columns of a day's summary that the list of reports shows."""

CART_ABANDONER = "cart_abandoner"

USER_DAY_COLUMNS = [*USER_SEGMENTS.column_names, *CUSTOMER_SEGMENTS.column_names[2:]]
"""The columns of both tables of a user's days, their common key once."""


class Condition(NamedTuple):
    """A condition on a column: a comparison such as = or <, and a value or an SQL expression."""

    column: str
    comparison: LiteralString
    value: object

    @property
    def sql(self) -> sql.Composable:
        """Return the condition as SQL."""
        value = self.value if isinstance(self.value, sql.Composable) else sql.Literal(self.value)
        return sql.SQL("{} {} {}").format(sql.Identifier(self.column), sql.SQL(self.comparison), value)


@dataclass(frozen=True)
class Asked:
    """The rows that a request asks for: their conditions, and the page of them."""

    conditions: tuple[Condition, ...]
    limit: int
    offset: int

    def where(self, *conditions: Condition) -> "Asked":
        """Return the same page of the rows that meet these conditions too."""
        return replace(self, conditions=(*self.conditions, *conditions))


@dataclass(frozen=True)
class Page:
    """Rows of a list from `offset` on, at most `limit`, and whether there are more after them."""

    rows: list[dict[str, Any]]
    limit: int
    offset: int
    more: bool


def page_of(
    connection: Connection[DictRow],
    source: str | sql.Composable,
    columns: Iterable[str],
    order: Iterable[str],
    asked: Asked,
) -> Page:
    """Return the page that is asked for.

    Args:
        connection: to PostgreSQL.
        source: a table's name, or an SQL expression in its stead.
        columns: the columns of a row.
        order: columns to sort by, with ` DESC` after those that fall, and ` DESC NULLS LAST` where they can be null; no
            two rows are equal in all of them, so that pages do not overlap.
        asked: conditions and page.
    """
    statement = sql.SQL(
        "SELECT {columns} FROM {source} WHERE {conditions} ORDER BY {order} LIMIT {limit} OFFSET {offset}"
    ).format(
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        source=sql.Identifier(source) if isinstance(source, str) else source,
        conditions=_all_of(asked.conditions),
        order=sql.SQL(", ").join(map(_by, order)),
        # One more than asked for shows whether there are more.
        limit=asked.limit + 1,
        offset=asked.offset,
    )
    rows = connection.execute(statement).fetchall()
    return Page(rows[: asked.limit], asked.limit, asked.offset, more=len(rows) > asked.limit)


def newest(table: str, column: str) -> sql.Composable:
    """Return the SQL expression of the greatest value that a column has."""
    return sql.SQL("(SELECT max({}) FROM {})").format(sql.Identifier(column), sql.Identifier(table))


def _all_of(conditions: Iterable[Condition]) -> sql.Composable:
    return sql.SQL(" AND ").join([sql.SQL("true"), *(condition.sql for condition in conditions)])


_ORDERS: dict[str, LiteralString] = {"": "{}", "DESC": "{} DESC", "DESC NULLS LAST": "{} DESC NULLS LAST"}


def _by(term: str) -> sql.Composable:
    column, _, falling = term.partition(" ")
    return sql.SQL(_ORDERS[falling]).format(sql.Identifier(column))


def _value(
    connection: Connection[DictRow],
    statement: LiteralString | sql.Composed,
    parameters: Sequence[Any] | None = None,
) -> Any:
    """Return the one column of a query's first row; None without a row.

    A statement with literals of a request takes no parameters: with any, even none of them, a `%` in a literal would
    be read as the place of one.
    """
    row = connection.execute(statement, parameters).fetchone()
    return next(iter(row.values())) if row else None


def _exists(connection: Connection[DictRow], table: str, condition: Condition) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})")
    return bool(_value(connection, statement.format(sql.Identifier(table), condition.sql)))


@dataclass(frozen=True)
class Known:
    """A person whom products are recommended to, as the served tables know them.

    Attributes:
        person: The person; of an anonymous id, who it is now.
        anonymous_ids: Ids that are theirs now.
        published: product_id, confidence_score, algorithm, reason, reason_product_id and model_version of the list that
            was made for them before, best first.
        met: Products that they have met; none if they have met none that lists are made by.
        may_be_profiled: False if the latest consent that they stated was a no.
        model_version: The model that is being served.
    """

    person: str
    anonymous_ids: list[str]
    published: list[dict[str, Any]]
    met: list[str] | None
    may_be_profiled: bool
    model_version: str | None

    def of_nobody(self) -> Self:
        """Return what is known of somebody who does not want to be profiled."""
        return replace(self, anonymous_ids=[], published=[], met=None)


def known(
    connection: Connection[DictRow], person: str, anonymous_id: str | sql.Composed | None = None
) -> Known:
    """Return what is known of a person, or of a visitor by their anonymous id."""
    if anonymous_id is not None:
        person = resolved_visitor(connection, anonymous_id)
    # One statement: each costs as much as what it finds.
    row = connection.execute(
        """
        SELECT
            (SELECT model_version FROM served_models WHERE answers = 'recommendations') AS model_version,
            (SELECT product_ids FROM met_products WHERE user_id = %(person)s) AS met,
            NOT EXISTS (
                SELECT FROM profiling_refusals WHERE user_id = %(person)s AND agreed_on IS NULL
            ) AS may_be_profiled,
            (SELECT array_agg(anonymous_id) FROM identities WHERE user_id = %(person)s AND is_latest) AS ids,
            (
                SELECT json_agg(
                    json_build_array(
                        product_id, confidence_score, algorithm, reason, reason_product_id, model_version
                    )
                    ORDER BY rank, product_id
                )
                FROM product_recommendations WHERE user_id = %(person)s
            ) AS published
        """,
        {"person": person},
    ).fetchone()
    assert row is not None
    names = (
        "product_id",
        "confidence_score",
        "algorithm",
        "reason",
        "reason_product_id",
        "model_version",
    )
    return Known(
        person=person,
        anonymous_ids=row["ids"] or [],
        published=[dict(zip(names, values, strict=True)) for values in row["published"] or ()],
        met=row["met"],
        may_be_profiled=row["may_be_profiled"],
        model_version=row["model_version"],
    )


class Wanted(NamedTuple):
    """Conditions that a listed product meets; None for whatever it is.

    Attributes:
        category: Its category, or one above it in the path.
        price_min: Its least price; what has no price is not wanted then.
        price_max: Its greatest price.
        available: False if it cannot be bought; True if no feed says that it cannot.
    """

    category: str | None = None
    price_min: float | None = None
    price_max: float | None = None
    available: bool | None = None

    def __bool__(self) -> bool:
        """Return whether anything is wanted."""
        return any(value is not None for value in self)

    @property
    def condition(self) -> LiteralString:
        """SQL condition on the columns of `products`, with `parameters`; null is false."""
        conditions: dict[str, LiteralString] = {
            "category": "(category = %(category)s OR starts_with(category, %(category_prefix)s))",
            "price_min": "price >= %(price_min)s",
            "price_max": "price <= %(price_max)s",
            "available": "(available IS NOT FALSE) = %(available)s",
        }
        chosen = [conditions[name] for name, value in self._asdict().items() if value is not None]
        return " AND ".join(["true", *chosen])

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the condition's parameters."""
        return {**self._asdict(), "category_prefix": f"{self.category}."}


WHATEVER = Wanted()
"""Wanted where a request names nothing."""


def those_wanted(connection: Connection[DictRow], product_ids: Collection[str], wanted: Wanted) -> set[str]:
    """Return those of some products that are wanted."""
    rows = connection.execute(
        "SELECT product_id FROM unnest(%(ids)s::text[]) AS asked (product_id) LEFT JOIN products USING (product_id) "  # noqa: S608 - of texts that are written here; values are parameters
        "WHERE " + wanted.condition,
        {"ids": list(product_ids), **wanted.parameters},
    ).fetchall()
    return {row["product_id"] for row in rows}


def popular_products(
    connection: Connection[DictRow],
    n: int,
    left_out: Collection[str],
    wanted: Wanted = WHATEVER,
    *,
    by_trend: bool = False,
) -> list[dict[str, Any]]:
    """Return the n most popular products that are wanted but those left out, best first, or the trendiest.

    Their product_id, score, users and trend.
    """
    join: LiteralString = "LEFT JOIN products USING (product_id) " if wanted else ""
    order: LiteralString = "trending_rank" if by_trend else "rank"
    return connection.execute(
        "SELECT product_id, score, users, trend FROM popular_products "  # noqa: S608 - of texts that are written here; values are parameters
        + join
        + "WHERE product_id <> ALL(%(left_out)s) AND "
        + wanted.condition
        + " ORDER BY "
        + order
        + ", product_id LIMIT %(n)s",
        {"left_out": list(left_out), "n": n, **wanted.parameters},
    ).fetchall()


def related_products(
    connection: Connection[DictRow], relation: str, product_id: str
) -> dict[str, Any] | None:
    """Return related_ids, scores, orders and together of a product; None if nothing is related to it."""
    return connection.execute(
        "SELECT related_ids, scores, orders, together FROM related_products WHERE relation = %s AND product_id = %s",
        [relation, product_id],
    ).fetchone()


def is_product(connection: Connection[DictRow], product_id: str) -> bool:
    """Return whether the shop names a product, or anybody met it."""
    condition = Condition("product_id", "=", product_id)
    return any(_exists(connection, table, condition) for table in ("products", "popular_products")) or is_met(
        connection, product_id
    )


def bought_products(connection: Connection[DictRow], person: str) -> list[Bought]:
    """Return what a person had bought when models were last trained."""
    rows = connection.execute(
        "SELECT bought.* FROM bought_products AS all_of_them, "
        "unnest(product_ids, all_of_them.days, last_times) AS bought (product_id, days, last) WHERE user_id = %s",
        [person],
    ).fetchall()
    return [Bought(**row) for row in rows]


def model_versions(connection: Connection[DictRow], n: int) -> list[dict[str, Any]]:
    """Return the n newest versions of models that were published, and those that are served, the newest first.

    Each with model_version, answers (what for), algorithm, parameters, reason, trained_at, trained_on, first_day,
    last_day, published_at, is_served, served_since, put_back_at and metrics (target, algorithm, judged, and values by
    their names).
    """
    return connection.execute(
        """
        WITH versions AS (
            SELECT 'recommendations' AS answers, model_version, algorithm, parameters::json AS parameters, reason,
                trained_at, trained_on, first_day, last_day, published_at,
                (
                    SELECT coalesce(json_agg(json_build_object(
                        'target', target, 'algorithm', algorithm, 'judged', users, 'values', json_build_object(
                            'ndcg@' || k, ndcg, 'ndcg_low', ndcg_low, 'ndcg_high', ndcg_high, 'map@' || k, map,
                            'precision@' || k, precision, 'recall@' || k, recall, 'coverage', coverage,
                            'novelty', novelty, 'share', share
                        )) ORDER BY target, algorithm, is_served), '[]')
                    FROM model_evaluation AS judged WHERE judged.model_version = model.model_version
                ) AS metrics
            FROM published_models AS model
            UNION ALL
            SELECT 'next_product', model_version, 'vmis_knn',
                json_build_object('sessions', sessions, 'products', products), NULL,
                trained_at, trained_on, NULL, NULL, published_at,
                (
                    SELECT json_agg(json_build_object(
                        'target', target, 'algorithm', 'vmis_knn', 'judged', judged, 'values',
                        CASE target WHEN 'next'
                            THEN json_build_object('hit_rate@20', rate, 'popular_hit_rate@20', popular_hit_rate)
                            ELSE json_build_object('hit_rate@20', rate) END
                    ))
                    FROM (VALUES ('next', targets, hit_rate), ('next_of_new_visitors', new_targets, new_hit_rate),
                        ('next_other', other_targets, other_hit_rate)) AS judged (target, judged, rate)
                    WHERE rate IS NOT NULL
                )
            FROM next_product_models
        ), dated AS (
            SELECT versions.*, served_since IS NOT NULL AS is_served, served_since, put_back_at
            FROM versions LEFT JOIN served_models USING (answers, model_version)
            UNION ALL
            -- Of these there is no other version than the last.
            SELECT 'predictions', model_version, 'logistic_regression', '{}', NULL, NULL,
                'events batch ' || split_part(model_version, '-', 1), NULL, max(last_day), NULL,
                json_agg(json_strip_nulls(json_build_object(
                    'target', predicted, 'algorithm', 'logistic_regression', 'judged', coalesce(examples, 0),
                    'values', json_build_object('auc', auc, 'log_loss', log_loss, 'base_log_loss', base_log_loss,
                        'rule_log_loss', rule_log_loss, 'lift', lift, 'calibration_error', calibration_error)
                )) ORDER BY predicted),
                bool_or(accepted), NULL, NULL
            FROM purchase_models GROUP BY model_version
        ), newest AS (
            SELECT *, row_number() OVER (
                ORDER BY is_served DESC, trained_at DESC NULLS LAST, answers, model_version
            ) AS place
            FROM dated
        )
        SELECT * FROM newest WHERE place <= %s ORDER BY trained_at DESC NULLS LAST, answers, model_version
        """,
        [n],
    ).fetchall()


def repeat_rates(connection: Connection[DictRow], product_ids: Collection[str]) -> dict[str, float]:
    """Return of some products the share of their buyers who come back for them, where it is known."""
    rows = connection.execute(
        "SELECT product_id, repeat_rate FROM popular_products WHERE product_id = ANY(%s)", [list(product_ids)]
    ).fetchall()
    return {row["product_id"]: row["repeat_rate"] for row in rows}


def buying_again(connection: Connection[DictRow]) -> tuple[str, dict[str, float]] | None:
    """Return the version of the model that says what is bought again, and what it has learnt; None before the first."""
    row = connection.execute(
        "SELECT model_version, buy_again FROM published_models JOIN served_models USING (model_version) "
        "WHERE answers = 'recommendations'"
    ).fetchone()
    return (row["model_version"], json.loads(row["buy_again"])) if row else None


def is_anything_recommended(connection: Connection[DictRow]) -> bool:
    """Return whether any recommendation is published for anybody."""
    return bool(
        _value(
            connection,
            "SELECT EXISTS (SELECT FROM product_recommendations) OR EXISTS (SELECT FROM popular_products)",
        )
    )


def erased_lately(connection: Connection[DictRow], minutes: int) -> list[tuple[str, datetime]]:
    """Return who asked to be erased in the last minutes, and when."""
    rows = connection.execute(
        "SELECT unnest(persons) AS person, asked_at FROM erasures "
        "WHERE asked_at > now() - make_interval(mins => %s) ORDER BY asked_at",
        [minutes],
    ).fetchall()
    return [(row["person"], row["asked_at"]) for row in rows]


def served_model(connection: Connection[DictRow], answers: str) -> str | None:
    """Return the version of the model that gives a kind of answer; None if none does."""
    return _value(connection, "SELECT model_version FROM served_models WHERE answers = %s", [answers])


def model_parts(connection: Connection[DictRow], version: str) -> list[str]:
    """Return the parts of a model of the next product, in order."""
    rows = connection.execute(
        "SELECT content FROM next_product_parts WHERE model_version = %s ORDER BY part", [version]
    ).fetchall()
    return [row["content"] for row in rows]


def person_of_visitor(anonymous_id: str | sql.Composed) -> sql.Composable:
    """Return the SQL of the person that a visitor is now: the user that the id is tied to, or the visitor itself."""
    return sql.SQL(
        "coalesce((SELECT user_id FROM identities WHERE anonymous_id = {id} AND is_latest), {beginning} || {id})"
    ).format(
        id=sql.Literal(anonymous_id) if isinstance(anonymous_id, str) else anonymous_id,
        beginning=sql.Literal(who.VISITOR),
    )


def resolved_visitor(connection: Connection[DictRow], anonymous_id: str | sql.Composed) -> str:
    """Return the person that a visitor is now."""
    return _value(connection, sql.SQL("SELECT {}").format(person_of_visitor(anonymous_id)))


def person(connection: Connection[DictRow], person_id: str) -> dict[str, Any] | None:
    """Return a person with their anonymous ids; None of whom there is neither an id nor a session."""
    if person_id.startswith(who.VISITOR):
        person_id = resolved_visitor(connection, person_id.removeprefix(who.VISITOR))
    tied = connection.execute(
        "SELECT anonymous_id, first_tied_at, is_latest FROM identities WHERE user_id = %s "
        "ORDER BY first_tied_at, anonymous_id",
        [person_id],
    ).fetchall()
    if not tied and not _exists(connection, "clickstream_sessions", Condition("user_id", "=", person_id)):
        return None
    if person_id.startswith(who.VISITOR):
        own = {"anonymous_id": person_id.removeprefix(who.VISITOR), "first_tied_at": None, "is_latest": True}
        tied = [own, *tied]
    return {"person_id": person_id, "anonymous_ids": tied}


def user_segments(connection: Connection[DictRow], user_id: str | sql.Composed, asked: Asked) -> Page | None:
    """Return days of a user with USER_DAY_COLUMNS, the newest first; None for a user without any day at all."""
    user = Condition("user_id", "=", user_id)
    if not any(_exists(connection, table, user) for table in ("user_segments", "customer_segments")):
        return None
    return user_days(connection, user_id, asked)


def newest_segment_day(connection: Connection[DictRow]) -> date | None:
    """Return the newest day with segments of either kind."""
    return _value(
        connection,
        "SELECT greatest((SELECT max(report_date) FROM user_segments), "
        "(SELECT max(report_date) FROM customer_segments))",
    )


def segment_counts(connection: Connection[DictRow], asked: Asked) -> Page:
    """Return users per segment and day, newest first: report_date, kind (activity, rfm or carts), segment, users."""
    counts = sql.SQL(
        """(
        SELECT report_date, 'activity' AS kind, segment, count(*) AS users
            FROM user_segments GROUP BY report_date, segment
        UNION ALL SELECT report_date, 'rfm', rfm_segment, count(*)
            FROM customer_segments WHERE rfm_segment IS NOT NULL GROUP BY report_date, rfm_segment
        UNION ALL SELECT report_date, 'carts', {abandoner}, count(*)
            FROM customer_segments WHERE abandoned_carts > 0 GROUP BY report_date
        ) AS counts"""
    ).format(abandoner=sql.Literal(CART_ABANDONER))
    columns = ["report_date", "kind", "segment", "users"]
    order = ["report_date DESC", "kind", "users DESC", "segment"]
    return page_of(connection, counts, columns, order, asked)


def segment_moves(connection: Connection[DictRow], day: date, before: date, asked: Asked) -> Page:
    """Return from which RFM segment to which customers went between two days: from_segment, to_segment, users.

    A segment is null where they were no customer, or were not in any segment.
    """
    moves = sql.SQL(
        """(
        SELECT former.rfm_segment AS from_segment, latter.rfm_segment AS to_segment, count(*) AS users
        FROM (SELECT user_id, rfm_segment FROM customer_segments WHERE report_date = {before}) AS former
        FULL JOIN (SELECT user_id, rfm_segment FROM customer_segments WHERE report_date = {day}) AS latter
            USING (user_id)
        WHERE former.rfm_segment IS NOT NULL OR latter.rfm_segment IS NOT NULL
        GROUP BY former.rfm_segment, latter.rfm_segment
        ) AS moves"""
    ).format(before=sql.Literal(before), day=sql.Literal(day))
    columns = ["from_segment", "to_segment", "users"]
    return page_of(connection, moves, columns, ["users DESC", "from_segment", "to_segment"], asked)


def user_days(connection: Connection[DictRow], user_id: str | sql.Composed, asked: Asked) -> Page:
    """Return days of a user with USER_DAY_COLUMNS, the newest first."""
    source = _user_days(Condition("user_id", "=", user_id), *asked.conditions)
    return page_of(connection, source, USER_DAY_COLUMNS, ["report_date DESC"], asked)


def segment_users(connection: Connection[DictRow], day: date | None, segment: str, asked: Asked) -> Page:
    """Return users of a segment on a day with USER_DAY_COLUMNS, by user id."""
    if segment in ACTIVITY_SEGMENTS:
        condition = Condition("segment", "=", segment)
    elif segment == CART_ABANDONER:
        condition = Condition("abandoned_carts", ">", 0)
    else:
        condition = Condition("rfm_segment", "=", segment)
    source = _user_days(Condition("report_date", "=", day))
    return page_of(connection, source, USER_DAY_COLUMNS, ["user_id"], asked.where(condition))


def _user_days(*conditions: Condition) -> sql.Composable:
    # A full join, because a customer has a row on days without a visit, and a visitor need not be a customer.
    # PostgreSQL does not push conditions into it.
    source: LiteralString = """(
        (SELECT * FROM user_segments WHERE {conditions}) AS active
        FULL JOIN (SELECT * FROM customer_segments WHERE {conditions}) AS customer USING (report_date, user_id)
    )"""
    return sql.SQL(source).format(conditions=_all_of(conditions))


PRODUCT_SUMS = ("view_count", "add_to_carts", "purchases", "quantity", "revenue", "refunds", "net_revenue")
"""The columns of a product's days that are added up."""
PRODUCT_TOTALS = (*PRODUCT_SUMS, "conversion_rate")
"""The columns of a product's days that its totals have."""


# Written once: each list of products asks for it.
_PRODUCTS = (
    sql.SQL("SELECT {} FROM products WHERE product_id = ANY(%s)")
    .format(sql.SQL(", ").join(map(sql.Identifier, PRODUCTS.column_names)))
    .as_bytes(None)
)


def product_totals(connection: Connection[DictRow], order: Sequence[str], asked: Asked) -> Page:
    """Return products with `days` on which somebody met them, PRODUCT_SUMS and conversion_rate of these days."""
    source = sql.SQL(
        "(SELECT product_id, count(*) AS days, {sums} FROM product_performance WHERE {conditions} GROUP BY product_id) "
        "AS totals"
    ).format(
        sums=sql.SQL(", ").join(
            sql.SQL("sum({name}) AS {name}").format(name=sql.Identifier(name)) for name in PRODUCT_SUMS
        ),
        conditions=_all_of(asked.conditions),
    )
    page = page_of(
        connection, source, ["product_id", "days", *PRODUCT_SUMS], order, replace(asked, conditions=())
    )
    rows = [
        # Not in SQL: PostgreSQL rounds half up.
        {**row, "conversion_rate": percent(int(row["purchases"]), int(row["view_count"]))}
        for row in page.rows
    ]
    return replace(page, rows=rows)


def products(connection: Connection[DictRow], product_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what the shop says of some products, by their ids: PRODUCTS rows of those that it knows."""
    rows = connection.execute(_PRODUCTS, [list(product_ids)]).fetchall()
    return {row["product_id"]: row for row in rows}


def is_met(connection: Connection[DictRow], product_id: str) -> bool:
    """Return whether there is a day on which somebody met a product."""
    return _exists(connection, "product_performance", Condition("product_id", "=", product_id))


def product_days(
    connection: Connection[DictRow], product_id: str, asked: Asked
) -> tuple[Page, dict[str, Any]]:
    """Return a product's days, the newest first, and the totals of all pages' days."""
    condition = Condition("product_id", "=", product_id)
    asked = asked.where(condition)
    columns = PRODUCT_PERFORMANCE.column_names
    days = page_of(connection, "product_performance", columns, ["report_date DESC"], asked)
    [totals] = connection.execute(
        sql.SQL(
            "SELECT count(*) AS days, coalesce(sum(view_count), 0)::bigint AS view_count, "
            "coalesce(sum(add_to_carts), 0)::bigint AS add_to_carts, "
            "coalesce(sum(purchases), 0)::bigint AS purchases, coalesce(sum(quantity), 0) AS quantity, "
            "coalesce(sum(revenue), 0) AS revenue, coalesce(sum(refunds), 0) AS refunds, "
            "coalesce(sum(net_revenue), 0) AS net_revenue FROM product_performance WHERE {}"
        ).format(_all_of(asked.conditions))
    ).fetchall()
    # Not in SQL: PostgreSQL rounds half up.
    return days, {**totals, "conversion_rate": percent(totals["purchases"], totals["view_count"])}


def reports(connection: Connection[DictRow], asked: Asked) -> Page:
    """Return days with a report, the newest first: generated_at and SUMMARY_FIGURES, null on a day without events."""
    source = sql.SQL(
        "(SELECT report_date, report.generated_at, {figures} FROM daily_report AS report "
        "LEFT JOIN daily_summary USING (report_date)) AS reports"
    ).format(figures=sql.SQL(", ").join(map(sql.Identifier, SUMMARY_FIGURES)))
    columns = ["report_date", "generated_at", *SUMMARY_FIGURES]
    return page_of(connection, source, columns, ["report_date DESC"], asked)


def report(connection: Connection[DictRow], day: date) -> dict[str, Any] | None:
    """Return a day's report, its products with their names."""
    text = _value(connection, "SELECT report FROM daily_report WHERE report_date = %s", [day])
    return None if text is None else with_names(connection, json.loads(text))


def report_days(connection: Connection[DictRow]) -> Mapping[str, Any]:
    """Return the first and the last day with a report, and how many there are."""
    [row] = connection.execute(
        "SELECT min(report_date) AS first, max(report_date) AS last, count(*) AS count FROM daily_report"
    ).fetchall()
    return row


def days_with_figures(connection: Connection[DictRow]) -> dict[str, Any]:
    """Return first_day, last_day and the currency of the days with a summary, null without any."""
    [row] = connection.execute(
        "SELECT min(report_date) AS first_day, max(report_date) AS last_day, (SELECT currency FROM daily_summary "
        "WHERE currency IS NOT NULL ORDER BY report_date DESC LIMIT 1) AS currency FROM daily_summary"
    ).fetchall()
    return row


def person_prediction(connection: Connection[DictRow], person: str) -> dict[str, Any] | None:
    """Return a person's probabilities of a purchase, by which model and as of which day; None if there are none."""
    return connection.execute(
        "SELECT user_id, probability_7_days, probability_28_days, reasons, last_day AS as_of, model_version "
        "FROM person_predictions, (SELECT last_day, model_version FROM purchase_models "
        "WHERE accepted AND predicted <> 'purchase_in_session' LIMIT 1) AS model WHERE user_id = %s",
        [person],
    ).fetchone()


def experiment_list(connection: Connection[DictRow], lists_of: str, person: str) -> list[dict[str, Any]]:
    """Return the list that an algorithm has for a person, as `Known.published` has it; best first."""
    return connection.execute(
        "SELECT product_id, confidence_score, algorithm, reason, reason_product_id, model_version "
        "FROM experiment_recommendations WHERE lists_of = %s AND user_id = %s ORDER BY rank, product_id",
        [lists_of, person],
    ).fetchall()


def has_lists(connection: Connection[DictRow], lists_of: str) -> bool:
    """Return whether an algorithm has lists for experiments."""
    return _exists(connection, "experiment_recommendations", Condition("lists_of", "=", lists_of))


def experiment_results(connection: Connection[DictRow], name: str | None = None) -> list[dict[str, Any]]:
    """Return the results of an experiment, or of all, by arm: EXPERIMENT_RESULTS rows, the control first."""
    statement = sql.SQL(
        "SELECT {} FROM experiment_results WHERE %s::text IS NULL OR experiment = %s ORDER BY {}"
    )
    columns, order = (
        sql.SQL(", ").join(map(sql.Identifier, names))
        for names in (EXPERIMENT_RESULTS.column_names, ("experiment", "place"))
    )
    return connection.execute(statement.format(columns, order), [name, name]).fetchall()


def session_model_version(connection: Connection[DictRow]) -> str | None:
    """Return the version of the model of sessions; None if none is accepted."""
    return _value(
        connection,
        "SELECT model_version FROM purchase_models WHERE accepted AND predicted = 'purchase_in_session'",
    )


def session_model(connection: Connection[DictRow]) -> str | None:
    """Return the model of sessions, as JSON; None if none is accepted."""
    return _value(
        connection, "SELECT model FROM purchase_models WHERE accepted AND predicted = 'purchase_in_session'"
    )


@dataclass(frozen=True)
class StreamStatus:
    """The state of the streams, the alerts and their notifications.

    Attributes:
        streams: per query its name, lag per partition, latency_seconds, records read and dropped as late, `failing`
            as 0 or 1; and `updated`, `lag_at`, `batch_at` and `watermark` in seconds since 1970.
        open_alerts: How many alerts are open.
        notifications: per sink, how many are pending and how many have failed.
    """

    streams: list[dict[str, Any]]
    open_alerts: int
    notifications: list[dict[str, Any]]


def stream_status(connection: Connection[DictRow]) -> StreamStatus:
    """Return what the streams last reported."""
    streams = connection.execute(
        # Who runs the query says by when it reports again; who did not is gone or hangs.
        "SELECT query, lag, latency_seconds, rows, dropped_late, "
        "(error IS NOT NULL OR coalesce(due_at < now(), false))::int AS failing, "
        "extract(epoch FROM updated_at)::float8 AS updated, extract(epoch FROM lag_at)::float8 AS lag_at, "
        "extract(epoch FROM batch_at)::float8 AS batch_at, extract(epoch FROM watermark)::float8 AS watermark "
        "FROM stream_status ORDER BY query"
    ).fetchall()
    open_alerts = _value(connection, "SELECT count(*) FROM flash_sale_alerts WHERE state = 'open'")
    notifications = connection.execute(
        "SELECT sink, count(*) FILTER (WHERE delivered_at IS NULL AND failed_at IS NULL) AS pending, "
        "count(failed_at) AS failed FROM alert_notifications GROUP BY sink ORDER BY sink"
    ).fetchall()
    return StreamStatus(streams=streams, open_alerts=open_alerts, notifications=notifications)


def newest_published_event(connection: Connection[DictRow]) -> float | None:
    """Return the time of the newest event in the published sessions, in seconds since 1970; None without any."""
    return _value(connection, "SELECT extract(epoch FROM max(end_time))::float8 FROM clickstream_sessions")


def record_days(connection: Connection[DictRow], first: date) -> list[dict[str, Any]]:
    """Return how many records came on each day from a first one on, by outcome; the newest day first."""
    return connection.execute(
        "SELECT arrival_date, outcome, sum(records)::bigint AS records FROM record_days WHERE arrival_date >= %s "
        "GROUP BY 1, 2 ORDER BY 1 DESC, 2",
        [first],
    ).fetchall()


def publications(connection: Connection[DictRow]) -> list[dict[str, Any]]:
    """Return when each asset that publishes last did so: asset and published_at, by asset."""
    return connection.execute("SELECT asset, published_at FROM publications ORDER BY asset").fetchall()


def rejected_lately(connection: Connection[DictRow]) -> list[dict[str, Any]]:
    """Return how many records that came within the last 24 hours each rule has rejected."""
    # Elasticsearch's own words after the kind of its error are without end.
    return connection.execute(
        "SELECT split_part(rule, ':', 1) AS rule, rejected_by, sum(records)::bigint AS records FROM rejected_counts "
        "WHERE rejected_by <> 'nobody' AND hour > now() - interval '24 hours' GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()


def left_out_lately(connection: Connection[DictRow]) -> list[dict[str, Any]]:
    """Return of how many events that came within the last 24 hours each field was left out, by rule."""
    return connection.execute(
        "SELECT field, rule, sum(records)::bigint AS records FROM rejected_counts "
        "WHERE rejected_by = 'nobody' AND hour > now() - interval '24 hours' GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()


def missing_tables(connection: Connection[DictRow]) -> list[str]:
    """Return names of the served tables that the database does not have."""
    rows = connection.execute(
        "SELECT name FROM unnest(%s::text[]) WITH ORDINALITY AS served (name, place) WHERE to_regclass(name) IS NULL "
        "ORDER BY place",
        [[table.served_name for table in SERVED_TABLES]],
    ).fetchall()
    return [row["name"] for row in rows]
