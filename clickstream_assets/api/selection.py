"""Shared parts of lists of recommended products: their parameters, the choice of products by them, and their answers.

Products come from sources in turn, best first: what a request leaves out, or what is not of the category and price that
it wants, is left out before the list is cut, so the list is full where the sources have enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from apiflask import Schema, fields, validators
from marshmallow import ValidationError, validates_schema
from psycopg import Connection
from psycopg.rows import DictRow

from clickstream_assets.api import queries
from clickstream_assets.api.experiments import InExperiment
from clickstream_assets.api.parameters import Amount, Flag, QueryParameters, Text, WholeNumber
from clickstream_assets.api.problems import ApiError
from clickstream_assets.api.product_details import detail_fields, with_details
from clickstream_assets.api.queries import Wanted
from clickstream_assets.recommender.diversity import category_likeness, diversified

# A diverse list is picked from so many times what it has, and at least from so many.
_POOL_TIMES = 5
_LEAST_POOL = 50
# A source is asked for so many where the wanted ones are picked from what it gives; the sources have less.
_ALL = 2000

SOURCES = ("session", "personal", "popular", "trending", "similar", "together", "bought")


class SelectionQuery(QueryParameters):
    """The parameters of every list of recommended products."""

    n = WholeNumber(1, 100, load_default=10, metadata={"description": "How many products"})
    category = Text(
        min_length=1,
        metadata={
            "description": "Only products of this category, or of those below it in the path with dots"
        },
    )
    price_min = Amount(metadata={"description": "Only products whose price is known and not lower"})
    price_max = Amount(metadata={"description": "Only products whose price is known and not higher"})
    available = Flag(
        metadata={
            "description": "true: no product that a feed says cannot be bought; false: such products only; all by "
            "default"
        }
    )
    exclude = fields.List(
        Text(),
        load_default=list,
        validate=validators.Length(max=100, error="must not be given more than 100 times"),
        metadata={"description": "Products to leave out; repeated, or with commas between them"},
    )
    diversity = Amount(
        1,
        load_default=0.0,
        metadata={
            "description": "How much a product's likeness, by category, to those listed before counts against it: from "
            "0, not at all, to 1, alone (maximal marginal relevance)"
        },
    )

    @validates_schema
    def _refuse_backward_prices(self, data: Any, **_: object) -> None:
        if "price_min" in data and "price_max" in data and data["price_min"] > data["price_max"]:
            raise ValidationError({"price_max": ["must not be lower than price_min"]})


class OfVisitor(Schema):
    """The parameter of lists for a visitor, beside those of the list."""

    anonymous_id = Text(
        required=True,
        min_length=1,
        metadata={"description": "The visitor; once they are tied to a user, that user's products are given"},
    )


class RecommendedProduct(Schema):
    """One product."""

    product_id = fields.String(required=True, metadata={"description": "The product"})
    rank = fields.Integer(required=True, metadata={"description": "Place in this list, from 1"})
    score = fields.Float(
        required=True, metadata={"description": "Comparable among the products of one source and algorithm"}
    )
    confidence_score = fields.Float(
        required=True,
        allow_none=True,
        metadata={
            "description": "The score of a published recommendation, or the chance that the product comes next; null "
            "for a product that fills the list"
        },
    )
    algorithm = fields.String(
        required=True,
        metadata={
            "description": "Of published lists an algorithm that was judged, such as blend, als, item_knn or "
            "popularity; in the moment recent (met already), vmis_knn (sessions like this one went there) or category; "
            "trending, bought_together or buy_again"
        },
    )
    reason = fields.String(required=True, metadata={"description": "Why, in words for the shopper"})
    reason_product_id = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "The product that the reason speaks of, by its name where it has one; null where there is "
            "none but the product itself"
        },
    )
    source = fields.String(
        required=True,
        validate=validators.OneOf(SOURCES),
        metadata={
            "description": "session: by what the shopper did last; personal: published for this shopper; popular: by "
            "all shoppers, also to fill a list up; trending: by those of late; similar, together: to the product that "
            "was asked about; bought: by the shopper's own purchases"
        },
    )
    model_version = fields.String(
        required=True, allow_none=True, metadata={"description": "The model that the product comes from"}
    )
    name, category, price, currency, image, link, available = detail_fields()


class ProductList(Schema):
    """The answer: products, and where they come from."""

    message = fields.String(
        required=True, allow_none=True, metadata={"description": "What is special about this answer"}
    )
    model_version = fields.String(
        required=True, allow_none=True, metadata={"description": "The model that the published lists are of"}
    )
    experiment = fields.Nested(
        InExperiment,
        required=True,
        allow_none=True,
        metadata={"description": "The experiment that the answer is part of; null where it is part of none"},
    )
    items = fields.List(
        fields.Nested(RecommendedProduct), required=True, metadata={"description": "Best first"}
    )


@dataclass(frozen=True)
class Asked:
    """A list as a request asks for it.

    Attributes:
        n: How many products.
        wanted: What they have to be.
        left_out: Products to leave out.
        diversity: How much likeness counts, 0 to 1.
    """

    n: int
    wanted: Wanted
    left_out: frozenset[str]
    diversity: float

    @classmethod
    def of(cls, query_data: dict[str, Any]) -> Self:
        """Take it from the values of `SelectionQuery`."""
        return cls(
            n=query_data["n"],
            wanted=Wanted(*map(query_data.get, ("category", "price_min", "price_max", "available"))),
            left_out=frozenset(
                part for value in query_data["exclude"] for part in (value, *value.split(","))
            ),
            diversity=query_data["diversity"],
        )

    @property
    def pool(self) -> int:
        """Number of products that the list is picked from."""
        return max(_LEAST_POOL, _POOL_TIMES * self.n) if self.diversity else self.n


class Selection:
    """A list that is being filled, from one source after another."""

    def __init__(self, connection: Connection[DictRow], asked: Asked, left_out: Collection[str] = ()) -> None:
        """Begin a list; `left_out` are products to leave out besides those that the request names."""
        self._connection = connection
        self._asked = asked
        self._rows: list[dict[str, Any]] = []
        self.wanted = asked.wanted
        self.left_out = {*asked.left_out, *left_out}
        """Products that no further source gives: those left out, and those listed."""

    def __len__(self) -> int:
        """Return how many products there are."""
        return len(self._rows)

    @property
    def lacking(self) -> int:
        """Number of further products that there can be."""
        return self._asked.pool - len(self._rows)

    @property
    def most(self) -> int:
        """Number of products to ask a source for that does not know what is wanted."""
        return _ALL if self.wanted else self.lacking

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add products of a source, best first, until there are enough.

        Rows have the fields of `RecommendedProduct` but for the rank and what is known of the product, and where their
        reason speaks of another one, `reason_product_id`.
        """
        if self.lacking <= 0:
            return
        fresh: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["product_id"] not in self.left_out:
                fresh.setdefault(row["product_id"], row)
                if len(fresh) == self.most:
                    break
        if self.wanted:
            fitting = queries.those_wanted(self._connection, fresh, self.wanted)
            fresh = {product_id: row for product_id, row in fresh.items() if product_id in fitting}
        self._rows += list(fresh.values())[: self.lacking]
        self.left_out.update(fresh)

    def add_popular(
        self,
        model_version: str | None,
        left_out: Collection[str] = (),
        *,
        by_trend: bool = False,
        **fields: Any,
    ) -> None:
        """Fill the list up with popular products, or trending ones.

        Args:
            model_version: the version that they are of.
            left_out: more products to leave out.
            by_trend: whether they are ranked by trend.
            fields: values of these rows instead of the usual ones.
        """
        self._add_popular(self.wanted, model_version, left_out, by_trend=by_trend, **fields)

    def add_popular_of(self, category: str, model_version: str | None, **fields: Any) -> None:
        """Add popular products of a category, unless others are wanted."""
        wanted = self.wanted
        if wanted.category in (None, category) or category.startswith(f"{wanted.category}."):
            self._add_popular(wanted._replace(category=category), model_version, **fields)

    def _add_popular(
        self,
        wanted: Wanted,
        model_version: str | None,
        left_out: Collection[str] = (),
        *,
        by_trend: bool = False,
        **fields: Any,
    ) -> None:
        if self.lacking <= 0:
            return
        found = queries.popular_products(
            self._connection, self.lacking, self.left_out | {*left_out}, wanted, by_trend=by_trend
        )
        rows = [(_trending_row if by_trend else _popular_row)(row, model_version) | fields for row in found]
        self._rows += rows
        self.left_out.update(row["product_id"] for row in rows)

    def items(self) -> list[dict[str, Any]]:
        """Return the list: `RecommendedProduct` values.

        Raises:
            ApiError: it is empty, and nothing at all has been published yet.
        """
        if not self._rows and not queries.is_anything_recommended(self._connection):
            raise nothing_published()
        asked, rows = self._asked, self._rows
        if asked.diversity:
            rows = with_details(self._connection, rows)
            picked = diversified(
                category_likeness([row["category"] for row in rows]), asked.n, asked.diversity
            )
            rows = [rows[place] for place in picked]
        else:
            rows = with_details(self._connection, rows)
        return [{"reason_product_id": None, **row, "rank": rank} for rank, row in enumerate(rows, start=1)]


def _popular_row(row: dict[str, Any], model_version: str | None) -> dict[str, Any]:
    return {
        "product_id": row["product_id"],
        "score": row["score"],
        "confidence_score": None,
        "algorithm": "popularity",
        "reason": "Popular with other shoppers",
        "source": "popular",
        "model_version": model_version,
    }


def _trending_row(row: dict[str, Any], model_version: str | None) -> dict[str, Any]:
    trending = {
        "score": row["score"] * row["trend"],
        "algorithm": "trending",
        "source": "trending",
    }
    # What is met less than usual is at the end of the list, for its popularity.
    if row["trend"] > 1:
        trending["reason"] = f"Met {row['trend']:.1f} times as often as usual lately"
    return _popular_row(row, model_version) | trending


def message_of(special: str | None, problem: str | None) -> str | None:
    """Return an answer's message: what is special about it, and what keeps the last events from counting."""
    late = f"What happened in the last minutes does not count: {problem}." if problem else None
    return " ".join(part for part in (special, late) if part) or None


def nothing_published() -> ApiError:
    """Return the problem that there are no recommendations yet."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE, "nothing_published", "No recommendations have been published yet."
    )
