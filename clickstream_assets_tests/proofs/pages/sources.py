"""Where the values that pages show are from: the public API, and plain SQL over what was sent.

Both answer in the same form, so that what a page has to show is said once (`expected`) and holds for both.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pyarrow as pa
import requests
from deltalake import DeltaTable

from clickstream_assets.settings import Settings
from clickstream_assets.stores.postgres.connection import connect
from clickstream_assets_tests.proofs.recomputation import Recomputation

Row = dict[str, Any]
_PAGING = {"limit", "offset"}


class Source(Protocol):
    """Answers questions as the API does."""

    def rows(self, path: str, name: str, **parameters: Any) -> list[Row]:
        """Return the rows of a list."""

    def one(self, path: str, **parameters: Any) -> Row:
        """Return an answer; empty where there is nothing of what is asked for."""


class Api:
    """The public API.

    Args:
        address: where it is.
        named: addresses that a page names, which alone are asked then; `unread` are those that were not.
    """

    def __init__(self, address: str, named: Iterable[str] | None = None) -> None:
        self._address = address
        self._named = named if named is None else [*named]
        self.unread = set(self._named or ())

    def _addresses(self, path: str, parameters: Mapping[str, Any]) -> list[str]:
        wanted = {
            (name, str(value))
            for name, values in parameters.items()
            for value in (values if isinstance(values, list) else [values])
            if value is not None
        }
        names = {name for name, _ in wanted}
        if self._named is None:
            return [quote(path) + (f"?{urlencode(sorted(wanted))}" if wanted else "")]
        found = []
        for each in self._named:
            parts = urlsplit(each)
            given = set(parse_qsl(parts.query))
            # A page says how many rows it asks for, and asks for further ones.
            is_it = wanted <= given and {name for name, _ in given} - _PAGING <= names
            if unquote(parts.path) == path and is_it:
                found.append(each)
        assert found, f"the page does not name {path} with {wanted}: {self._named}"
        return found

    def _answers(self, path: str, parameters: Mapping[str, Any]) -> list[Row]:
        answers = []
        for each in self._addresses(path, parameters):
            self.unread.discard(each)
            answer = requests.get(self._address + each, timeout=30)
            # Of what there is not there is no row.
            assert answer.status_code in (200, 404), answer.text
            is_there = answer.status_code == 200
            answers.append(json.loads(answer.text, parse_float=Decimal) if is_there else {})
        return answers

    def rows(self, path: str, name: str, **parameters: Any) -> list[Row]:
        """See the protocol."""
        return [row for answer in self._answers(path, parameters) for row in answer.get(name, [])]

    def one(self, path: str, **parameters: Any) -> Row:
        """See the protocol."""
        return self._answers(path, parameters)[0]


# As flash sales are found by default: windows of ten minutes, one every five; thresholds, and the cool-down.
_ALERTS = """
CREATE TABLE alerts AS
WITH placed AS (
    SELECT
        product_id, event_type,
        unnest([us // 300000000 * 300000000, us // 300000000 * 300000000 - 300000000]) AS start_us
    FROM events
    WHERE NOT is_robot AND product_id IS NOT NULL
),
windows AS (
    SELECT
        product_id, start_us, start_us + 600000000 AS end_us,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'purchase') AS purchases
    FROM placed GROUP BY ALL
),
over AS (
    SELECT *, coalesce(start_us > lag(end_us) OVER its + 1800000000, true) AS begins
    FROM windows WHERE views > 100 AND purchases < 5
    WINDOW its AS (PARTITION BY product_id ORDER BY start_us)
),
episodes AS (
    SELECT *, sum(begins::INT) OVER (PARTITION BY product_id ORDER BY start_us) AS episode FROM over
)
SELECT
    product_id,
    make_timestamptz(min(start_us)) AS first_window_start,
    make_timestamptz(max(end_us)) AS last_window_end,
    max(views) AS views,
    arg_max(purchases, (views, -start_us)) AS purchases
FROM episodes GROUP BY product_id, episode
"""
_PRODUCTS = """
CREATE TABLE details AS
SELECT
    product_id,
    max((us, product_category)) FILTER (product_category IS NOT NULL)[2] AS category,
    max((us, brand)) FILTER (brand IS NOT NULL)[2] AS brand,
    max((us, product_name)) FILTER (product_name IS NOT NULL)[2] AS name,
    max((us, price)) FILTER (price IS NOT NULL AND event_type <> 'refund')[2] AS price,
    NULL::BOOLEAN AS available
FROM events
WHERE NOT is_robot AND product_id IS NOT NULL AND event_type IN (
    'view', 'click', 'impression', 'add_to_wishlist', 'add_to_cart', 'remove_from_cart', 'begin_checkout', 'purchase',
    'refund'
)
GROUP BY product_id
"""
# The simulated shop's feed names all of its products, with all that there is to say.
_OF_FEED = """
CREATE OR REPLACE TABLE details AS
SELECT product_id, category, brand, name, price::DECIMAL(18, 4) AS price, available FROM feed
"""
_SEGMENT_COUNTS = """
(
    SELECT report_date, 'activity' AS kind, segment, count(*) AS users FROM expected.user_segments
    WHERE user_id NOT IN (
        SELECT user_id FROM persons WHERE consent IS NOT NULL GROUP BY user_id HAVING NOT arg_max(consent, us)
    )
    GROUP BY ALL
    UNION ALL
    SELECT report_date, 'rfm', rfm_segment, count(*) FROM expected.customer_segments
    WHERE rfm_segment IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT report_date, 'carts', 'cart_abandoner', count(*) FROM expected.customer_segments
    WHERE abandoned_carts > 0 GROUP BY ALL
)
"""


class Independent:
    """Plain SQL over what was sent; over the lake's tables and PostgreSQL's for what only they know.

    Args:
        recomputation: the tables that what was sent makes; its `raw` has `query`, `brand` and `product_name` too.
        lake: tables of the lake, by name.
        feed: what the shop's feed says of its products, which counts where it says something.
        settings: of the demo, for what is published of models.
        api: whom to ask for what no query can say, such as how Dagster is.
    """

    def __init__(
        self,
        recomputation: Recomputation,
        lake: Mapping[str, pa.Table],
        feed: Sequence[Row],
        settings: Settings,
        api: Source,
    ) -> None:
        self._sql = recomputation
        self._settings = settings
        self._api = api
        for name, table in lake.items():
            recomputation.register(f"lake_{name}", table)
        recomputation.query(_ALERTS)
        recomputation.query(_PRODUCTS)
        if feed:
            recomputation.register("feed", pa.Table.from_pylist([*feed]))
            recomputation.query(_OF_FEED)
        # Without ids of the sender's, what happened at one moment is in the order of those that the ingest has made.
        recomputation.query(
            """
            CREATE TABLE live AS
            SELECT * REPLACE (coalesce(event_id, made_id) AS event_id)
            FROM (
                SELECT * FROM raw
                QUALIFY row_number() OVER (PARTITION BY coalesce(event_id, payload) ORDER BY line) = 1
            )
            LEFT JOIN (
                SELECT min(event_id) AS made_id, event_time, user_id AS sent_user_id, product_id, event_type
                FROM lake_events GROUP BY ALL
            ) USING (event_time, sent_user_id, product_id, event_type)
            """
        )
        self._answers: dict[str, Callable[..., list[Row]]] = {
            "/api/days": lambda **asked: self._of_days("expected.daily_summary", asked),
            "/api/hours": lambda **asked: self._of_days("expected.hourly_summary", asked),
            "/api/categories": lambda **asked: self._of_days("expected.category_conversion", asked),
            "/api/attribution": lambda **asked: self._of_days("expected.campaign_attribution", asked),
            "/api/funnel": lambda **asked: self._of_days("expected.funnel", asked),
            "/api/segment-counts": lambda **asked: self._of_days(_SEGMENT_COUNTS, asked),
            "/api/segments": lambda **asked: self._of_days(_SEGMENT_COUNTS, asked),
            "/api/reports": self._reports,
            "/api/product-totals": self._product_totals,
            "/api/alerts": self._alerts,
            "/api/catalogue": lambda product_id, limit: [
                {"product_id": its, **self._details(its)} for its in product_id[:limit]
            ],
            "/api/segment-moves": self._moves,
            "/api/cohorts": self._cohorts,
            "/api/carts": self._carts,
            "/api/predictions": self._predictions,
            "/real-time-events": self._live,
            "/sessions": self._sessions,
            "/api/rejected": self._rejected,
            "/api/rejected/samples": self._samples,
            "/api/records": self._records,
            "/api/models": self._models,
            "/api/experiments": lambda **_: [],
        }

    def rows(self, path: str, name: str, **parameters: Any) -> list[Row]:
        """See the protocol."""
        del name
        parameters = {key: value for key, value in parameters.items() if value is not None}
        return self._answers[path](**parameters)

    def one(self, path: str, **parameters: Any) -> Row:
        """See the protocol."""
        if path == "/api/shop":
            [row] = self._query(
                "SELECT min(report_date) AS first_day, max(report_date) AS last_day, "
                "arg_max(currency, report_date) AS currency FROM expected.daily_summary"
            )
            return {**row, "time_zone": "UTC", "today": datetime.now(UTC).date()}
        if path.startswith("/api/reports/"):
            return self._report(date.fromisoformat(path.removeprefix("/api/reports/")))
        for beginning, answer in (
            ("/api/products/", self._product),
            ("/api/item-to-item/", self._similar),
            ("/api/bought-together/", self._together),
            ("/api/recommend/", self._recommended),
            ("/api/buy-again/", self._again),
            ("/api/predictions/", self._prediction),
        ):
            if path.startswith(beginning):
                return answer(path.removeprefix(beginning), **parameters)
        if path == "/api/data":
            return self._data()
        # How Dagster and the servers are is only theirs to say.
        assert path == "/health/ready", path
        return self._api.one(path, **parameters)

    def _query(self, statement: str, *parameters: Any) -> list[Row]:
        return self._sql.rows(statement, parameters)

    def _of_days(self, table: str, asked: Mapping[str, Any]) -> list[Row]:
        comparisons = {"date": "report_date =", "since": "report_date >=", "until": "report_date <="}
        kept = {name: value for name, value in asked.items() if name not in _PAGING}
        conditions = [f"{comparisons.get(name, f'{name} =')} ?" for name in kept]
        return self._query(f"FROM {table} WHERE {' AND '.join(['true', *conditions])}", *kept.values())

    def _reports(self, since: date, until: date, **_: Any) -> list[Row]:
        return self._query(
            "SELECT report_date, users, sessions, orders, net_revenue, conversion_rate FROM days "
            "LEFT JOIN expected.daily_summary USING (report_date) "
            "WHERE report_date BETWEEN ? AND ? ORDER BY report_date DESC",
            since,
            until,
        )

    def _report(self, day: date) -> Row:
        [row] = self._query("SELECT report FROM reports WHERE report_date = ?", day)
        report: Row = json.loads(row["report"], parse_float=Decimal)
        for product in report["top_5_viewed_products"]:
            if name := self._details(product["product_id"])["name"]:
                product["name"] = name
        return report

    def _details(self, product_id: str) -> Row:
        found = self._query("SELECT * EXCLUDE (product_id) FROM details WHERE product_id = ?", product_id)
        return found[0] if found else dict.fromkeys(("name", "category", "brand", "price", "available"))

    def _product_totals(
        self, since: date, until: date, sort: str, limit: int, offset: int = 0, category: str | None = None
    ) -> list[Row]:
        assert sort.replace("_", "").isalpha()
        return self._query(
            f"""
            SELECT
                totals.*, name,
                coalesce(purchases * 100.0::DECIMAL(5, 1) / nullif(view_count, 0), 0) AS conversion_rate
            FROM (
                SELECT
                    product_id, sum(view_count)::BIGINT AS view_count, sum(add_to_carts)::BIGINT AS add_to_carts,
                    sum(purchases)::BIGINT AS purchases, sum(revenue) AS revenue, sum(refunds) AS refunds,
                    sum(net_revenue) AS net_revenue
                FROM expected.product_performance
                WHERE report_date BETWEEN ? AND ? AND (?::VARCHAR IS NULL OR product_category = ?)
                GROUP BY product_id
            ) AS totals
            LEFT JOIN details USING (product_id)
            ORDER BY {sort} DESC, product_id LIMIT {limit} OFFSET {offset}
            """,
            since,
            until,
            category,
            category,
        )

    def _alerts(
        self, since: str | None = None, until: str | None = None, state: str | None = None, limit: int = 10
    ) -> list[Row]:
        if state == "open":
            # All windows of what was sent are over.
            return []
        return self._query(
            "SELECT alerts.*, 'resolved' AS state, name FROM alerts LEFT JOIN details USING (product_id) "
            "WHERE first_window_start >= ?::TIMESTAMPTZ AND first_window_start < ?::TIMESTAMPTZ "
            f"ORDER BY first_window_start DESC LIMIT {limit}",
            since,
            until,
        )

    def _moves(self, date: date, days: int, **_: Any) -> list[Row]:
        return self._query(
            """
            SELECT former.rfm_segment AS from_segment, latter.rfm_segment AS to_segment, count(*) AS users
            FROM (FROM expected.customer_segments WHERE report_date = ?) AS former
            FULL JOIN (FROM expected.customer_segments WHERE report_date = ?) AS latter USING (user_id)
            WHERE former.rfm_segment IS NOT NULL OR latter.rfm_segment IS NOT NULL
            GROUP BY ALL ORDER BY users DESC, from_segment NULLS LAST, to_segment NULLS LAST
            """,
            date - timedelta(days=days),
            date,
        )

    def _cohorts(self, since: date, until: date) -> list[Row]:
        return self._query("FROM expected.cohort_retention WHERE cohort_week BETWEEN ? AND ?", since, until)

    def _carts(self, state: str, sort: str, limit: int) -> list[Row]:
        assert sort == "value"
        return self._query(
            f"FROM expected.carts WHERE state = ? ORDER BY value DESC, cart_id LIMIT {limit}", state
        )

    def _predictions(self, limit: int) -> list[Row]:
        return self._published(
            "SELECT * FROM person_predictions ORDER BY probability_28_days DESC NULLS LAST, user_id LIMIT %s",
            limit,
        )

    def _live(self, limit: int, user_id: str | None = None) -> list[Row]:
        return self._query(
            "SELECT event_time, event_type, product_id, query, sent_user_id AS user_id, anonymous_id FROM live "
            f"WHERE coalesce(sent_user_id = ?, ? IS NULL) ORDER BY event_time DESC, event_id LIMIT {limit}",
            user_id,
            user_id,
        )

    def _sessions(self, user_id: str, limit: int, sort: str) -> list[Row]:
        assert sort == "start_time"
        return self._query(
            "FROM expected.sessions WHERE NOT is_bot AND user_id = ? ORDER BY start_time DESC, session_id "
            f"LIMIT {limit}",
            user_id,
        )

    def _rejected(self, since: str, until: str, rejected_by: str) -> list[Row]:
        return self._query(
            "SELECT rule, coalesce(field, '(record)') AS field, count(*) AS records FROM lake_rejected_events "
            "WHERE rejected_by = ? AND kafka_time >= ?::TIMESTAMPTZ AND kafka_time < ?::TIMESTAMPTZ GROUP BY ALL",
            rejected_by,
            since,
            until,
        )

    def _samples(self, since: str, until: str, **_: Any) -> list[Row]:
        return self._query(
            "SELECT rule, coalesce(field, '(record)') AS field, kafka_time, topic, partition, \"offset\", item, "
            "rejected_value FROM lake_rejected_events "
            "WHERE kafka_time >= ?::TIMESTAMPTZ AND kafka_time < ?::TIMESTAMPTZ "
            'ORDER BY kafka_time DESC, topic, partition, "offset", item',
            since,
            until,
        )

    def _records(self, since: date, until: date) -> list[Row]:
        return self._query(
            """
            WITH arrived AS (
                SELECT 'event' AS outcome, '' AS rule, '' AS field, kafka_time FROM lake_events
                UNION ALL SELECT 'late', '', '', kafka_time FROM lake_events WHERE kafka_time::DATE > event_date
                UNION ALL
                SELECT 'duplicate', '', '', kafka_time FROM lake_duplicate_events
                UNION ALL
                SELECT 'conflict', '', '', kafka_time FROM lake_conflicting_events
                UNION ALL
                SELECT 'rejected', rule, coalesce(field, '(record)'), kafka_time FROM lake_rejected_events
                WHERE rejected_by = 'ingest'
            )
            SELECT kafka_time::DATE AS arrival_date, outcome, rule, field, count(*) AS records FROM arrived
            WHERE kafka_time::DATE BETWEEN ? AND ? GROUP BY ALL
            """,
            since,
            until,
        )

    def _data(self) -> Row:
        said = self._api.one("/api/data")
        today = datetime.now(UTC).date()
        [newest] = self._query("SELECT max(event_time) AS at FROM events")
        sums: defaultdict[str, int] = defaultdict(int)
        for row in self._records(today, today):
            sums[row["outcome"]] += row["records"]
        received = sum(sums[outcome] for outcome in ("event", "duplicate", "conflict", "rejected"))
        of_today = {"date": str(today), "received": received, "rejected": sums["rejected"]}
        ingest = {**said["ingest"], "newest_event_at": newest["at"], "published_event_at": newest["at"]}
        return {**said, "days": [of_today] if received else [], "ingest": ingest}

    def _product(self, product_id: str, since: date, until: date, **_: Any) -> Row:
        rows = self._query(
            "FROM expected.product_performance WHERE product_id = ? AND report_date BETWEEN ? AND ?",
            product_id,
            since,
            until,
        )
        names = ("view_count", "add_to_carts", "purchases", "revenue", "refunds")
        totals: Row = {name: sum(row[name] for row in rows) for name in names}
        views = totals["view_count"]
        totals["conversion_rate"] = 100 * Decimal(totals["purchases"]) / views if views else Decimal(0)
        known = self._details(product_id)
        return {"product": known, "totals": totals, "days": rows}

    def _with_details(self, items: Iterable[Row]) -> list[Row]:
        return [{**item, **self._details(item["product_id"])} for item in items]

    def _similar(self, product_id: str) -> Row:
        """Of what is like a product: what was published. What fills the list up is the API's."""
        [related] = self._published(
            "SELECT related_ids, scores FROM related_products WHERE relation = 'item_to_item' AND product_id = %s",
            product_id,
        ) or [{"related_ids": [], "scores": []}]
        assert related["scores"] == sorted(related["scores"], reverse=True)
        items = self._api.one(f"/api/item-to-item/{product_id}")["items"]
        similar = [item for item in items if item["source"] == "similar"]
        assert [item["product_id"] for item in similar] == related["related_ids"][: len(similar)]
        assert [float(item["score"]) for item in similar] == related["scores"][: len(similar)]
        assert items[: len(similar)] == similar
        return {"items": self._with_details(items)}

    def _together(self, product_id: str) -> Row:
        """Count the orders that have both: each is a person's, by its id or else its minute."""
        counted = self._query(
            """
            WITH refusers AS (
                SELECT user_id FROM persons WHERE consent IS NOT NULL GROUP BY user_id HAVING NOT arg_max(consent, us)
            ),
            bought AS (
                SELECT DISTINCT user_id, order_key, product_id FROM persons
                WHERE event_type = 'purchase' AND product_id IS NOT NULL AND user_id NOT IN (FROM refusers)
            )
            SELECT other.product_id, count(*) AS together, (SELECT count(*) FROM bought WHERE product_id = ?) AS orders
            FROM bought AS its JOIN bought AS other USING (user_id, order_key)
            WHERE its.product_id = ? AND other.product_id <> its.product_id
            GROUP BY other.product_id
            """,
            product_id,
            product_id,
        )
        name = self._details(product_id)["name"] or product_id
        reasons = {
            row["product_id"]: f"In {row['together']} of the {row['orders']} orders that had {name}"
            for row in counted
        }
        items = self._api.one(f"/api/bought-together/{product_id}").get("items", [])
        return {
            "items": [{**item, "reason": reasons[item["product_id"]]} for item in self._with_details(items)]
        }

    def _recommended(self, person: str, n: int) -> Row:
        """What was published for a person, with its reasons; the rest of the list is the API's."""
        published = {
            row["product_id"]: row
            for row in self._published("SELECT * FROM product_recommendations WHERE user_id = %s", person)
        }
        answer = self._api.one(f"/api/recommend/{person}", n=n)
        for item in answer["items"]:
            if item["source"] == "personal":
                row = published[item["product_id"]]
                assert float(item["score"]) == row["confidence_score"]
                reason, of = row["reason"], row["reason_product_id"]
                if of and (name := self._details(of)["name"]):
                    reason = reason.replace(of, name)
                assert (item["reason"], item["algorithm"]) == (reason, row["algorithm"])
        return {**answer, "items": self._with_details(answer["items"])}

    def _again(self, person: str, n: int) -> Row:
        bought = {
            row["product_id"]: row
            for row in self._query(
                "SELECT product_id, count(DISTINCT event_date) AS days, max(event_date) AS last FROM persons "
                "WHERE event_type = 'purchase' AND user_id = ? GROUP BY product_id",
                person,
            )
        }
        answer = self._api.one(f"/api/buy-again/{person}", n=n)
        assert {item["product_id"] for item in answer["items"]} <= bought.keys()
        assert len(answer["items"]) == min(n, len(bought))

        def reason(product_id: str) -> str:
            row = bought[product_id]
            on = f"{row['days']} days, last on {row['last']}" if row["days"] > 1 else f"{row['last']}"
            return f"You bought this on {on}"

        return {
            "items": [
                {**item, "reason": reason(item["product_id"])} for item in self._with_details(answer["items"])
            ]
        }

    def _prediction(self, person: str) -> Row:
        rows = self._published("SELECT * FROM person_predictions WHERE user_id = %s", person)
        # What is said of a visit that is under way is of the moment.
        session = self._api.one(f"/api/predictions/{person}").get("session")
        if not rows and not session:
            return {}
        nothing: Row = {"probability_7_days": None, "probability_28_days": None, "reasons": []}
        return {**(rows[0] if rows else nothing), "session": session}

    def _models(self, n: int) -> list[Row]:
        lists = self._published(
            "SELECT 'recommendations' AS answers, model.*, served_since IS NOT NULL AS is_served "
            "FROM published_models AS model LEFT JOIN served_models AS served "
            "ON served.answers = 'recommendations' AND served.model_version = model.model_version"
        )
        for row in lists:
            judged = self._published(
                "SELECT * FROM model_evaluation WHERE model_version = %s ORDER BY target, algorithm, is_served",
                row["model_version"],
            )
            row["metrics"] = [
                {
                    "target": each["target"],
                    "algorithm": each["algorithm"],
                    "values": {f"ndcg@{each['k']}": each["ndcg"]},
                }
                for each in judged
            ]
        next_product = self._published(
            "SELECT 'next_product' AS answers, 'vmis_knn' AS algorithm, model.*, served_since IS NOT NULL AS is_served "
            "FROM next_product_models AS model LEFT JOIN served_models AS served "
            "ON served.answers = 'next_product' AND served.model_version = model.model_version"
        )
        for row in next_product:
            rates = {
                "next": "hit_rate",
                "next_of_new_visitors": "new_hit_rate",
                "next_other": "other_hit_rate",
            }
            row["metrics"] = [
                {"target": target, "algorithm": "vmis_knn", "values": {"hit_rate@20": row[rate]}}
                for target, rate in rates.items()
                if row[rate] is not None
            ]
        predictions: dict[str, Row] = {}
        for each in self._published("SELECT * FROM purchase_models ORDER BY model_version, predicted"):
            row = predictions.setdefault(
                each["model_version"],
                {
                    **{"answers": "predictions", "algorithm": "logistic_regression", "trained_at": None},
                    **{"model_version": each["model_version"], "is_served": False, "metrics": []},
                },
            )
            row["is_served"] |= each["accepted"]
            names = ("auc", "log_loss", "base_log_loss", "rule_log_loss", "lift", "calibration_error")
            values = {name: each[name] for name in names if each[name] is not None}
            row["metrics"].append(
                {"target": each["predicted"], "algorithm": "logistic_regression", "values": values}
            )
        rows = sorted(
            [*lists, *next_product, *predictions.values()],
            key=lambda row: (row["answers"], row["model_version"]),
        )
        rows.sort(key=lambda row: row["trained_at"] or datetime.min.replace(tzinfo=UTC), reverse=True)
        assert len(rows) <= n
        return rows

    def _published(self, statement: Any, *parameters: Any) -> list[Row]:
        with connect(self._settings) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def lake_tables(lake: str, *names: str) -> dict[str, pa.Table]:
    """Return tables of the lake, by name."""
    return {name: DeltaTable(f"{lake}/{name}").to_pyarrow_table() for name in names}
