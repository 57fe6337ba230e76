"""The pages of products: what is viewed and sold over a range of days, and each product by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, request

from clickstream_assets.api.pages.asked import Range, choice_asked, range_asked
from clickstream_assets.api.pages.parts import Cell, Chart, Figure, Filter, Listing, Series
from clickstream_assets.api.pages.reader import Reader
from clickstream_assets.api.pages.rendering import (
    NO_FIGURES,
    reader_of,
    sheet,
    shown_picture,
    with_parameters,
)
from clickstream_assets.api.pages.source import Source
from clickstream_assets.catalogue.clock import ShopClock

_SORTS = {
    "view_count": "views",
    "revenue": "revenue",
    "net_revenue": "revenue less refunds",
    "purchases": "purchases",
    "add_to_carts": "additions to carts",
}
_USUAL_DAYS = 7
_LISTED = 50


def product_link(product_id: str) -> str:
    """Return the address of a product's page."""
    return f"/products/{quote(product_id, safe='')}"


def name_of(product: Mapping[str, Any]) -> str:
    """Return what a product is called: its name, or its id where it has none."""
    return product["name"] or product["product_id"]


def product_cell(product: Mapping[str, Any]) -> Cell:
    """Return a cell of a product: its name and picture, with its page behind them."""
    return Cell(
        name_of(product), product_link(product["product_id"]), picture=shown_picture(product["image"])
    )


def products_named(source: Source, product_ids: Iterable[str | None]) -> dict[str, dict[str, Any]]:
    """Ask what some products are called, and for their pictures, by their ids; a few dozen."""
    ids = sorted(set(filter(None, product_ids)))
    found = {product_id: {"product_id": product_id, "name": None, "image": None} for product_id in ids}
    if ids:
        answer = source.get("/api/catalogue", product_id=ids, limit=len(ids))
        found.update({product["product_id"]: product for product in answer.rows("catalogue")})
    return found


def show_products() -> Response:
    """Show the products of some days, the most viewed first."""
    source = Source()
    reader = reader_of(source)
    if source.last_day is None:
        return sheet(source, reader, title="Products", empty=NO_FIGURES)
    asked = range_asked(source.last_day, _USUAL_DAYS)
    sort = choice_asked("sort", _SORTS, "view_count")
    category = request.args.get("category") or None
    offset = request.args.get("offset", "0")
    given = {"since": asked.first, "until": asked.last, "category": category, "sort": sort}
    answer = source.get("/api/product-totals", limit=_LISTED, offset=offset, **given)
    its = alerts_asked(reader, asked)
    alerts = source.get("/api/alerts", **its, limit=20)
    more = answer.content.get("page", {}).get("more")
    as_csv = urlencode({name: value for name, value in given.items() if value is not None})
    return sheet(
        source,
        reader,
        title="Products",
        filters=[
            *_range_filters(asked),
            Filter("category", "Category", category, type="text"),
            Filter("sort", "Most first by", sort, _SORTS),
        ],
        tables=[
            Listing(
                "products",
                "Products",
                ["Product", "Views", "Into carts", "Purchases", "Bought per 100 views", "Revenue", "Refunds"],
                [_row(reader, product) for product in answer.rows("products")],
                empty="Nobody met any of these products on these days.",
                csv=f"/api/product-totals?{as_csv}&limit=1000&format=csv",
                more=with_parameters(offset=int(answer.content["page"]["offset"]) + _LISTED)
                if more
                else None,
            ),
            alerts_of(reader, "Flash sales of these days", alerts.rows("alerts"), its),
        ],
    )


def _range_filters(asked: Range) -> list[Filter]:
    return [Filter("since", "From", asked.first), Filter("until", "To", asked.last)]


def _row(reader: Reader, product: dict[str, Any]) -> list[Cell]:
    counts = ("view_count", "add_to_carts", "purchases")
    return [
        product_cell(product),
        *(Cell(reader.number(product[name]), is_number=True) for name in counts),
        Cell(reader.percent(product["conversion_rate"]), is_number=True),
        *(Cell(reader.money(product[name]), is_number=True) for name in ("revenue", "refunds")),
    ]


def alerts_asked(reader: Reader, days: Range) -> dict[str, str]:
    """Return the parameters of the alerts that began on these days of the shop's."""
    clock = ShopClock(reader.zone.key)
    begin, end = (clock.begin(day) for day in (days.first, days.last + timedelta(days=1)))
    return {"since": begin.isoformat(), "until": end.isoformat()}


def alerts_of(
    reader: Reader, title: str, alerts: Sequence[dict[str, Any]], asked: Mapping[str, str]
) -> Listing:
    """Return a table of the alerts that were asked for by these parameters."""
    return Listing(
        "alerts",
        title,
        ["Product", "Since", "State", "Views", "Purchases"],
        [
            [
                product_cell(alert),
                Cell(reader.moment_of(alert["first_window_start"])),
                Cell(alert["state"]),
                Cell(reader.number(alert["views"]), is_number=True),
                Cell(reader.number(alert["purchases"]), is_number=True),
            ]
            for alert in alerts
        ],
        note="Products that were viewed much and bought little within a window.",
        empty="There was none.",
        csv=f"/api/alerts?{urlencode(asked)}&limit=1000&format=csv",
    )


def show_product(product_id: str) -> Response:
    """Show a product: what it is, its days, and the products that go with it."""
    source = Source()
    reader = reader_of(source)
    if source.last_day is None:
        return sheet(source, reader, title="Products", empty=NO_FIGURES)
    asked = range_asked(source.last_day, 28)
    history = source.get(f"/api/products/{product_id}", since=asked.first, until=asked.last, limit=1000)
    similar = source.get(f"/api/item-to-item/{product_id}")
    together = source.get(f"/api/bought-together/{product_id}")
    product = history.content.get("product") or {}
    totals = history.content.get("totals") or {}
    days = {row["report_date"]: row for row in history.rows("days")}
    labels = [reader.weekday(day) for day in asked.days]
    facts = {
        "Id": product_id,
        "Category": product.get("category"),
        "Brand": product.get("brand"),
        "Price": reader.money(product["price"]) if product.get("price") is not None else None,
    }
    if product.get("available") is not None:
        facts["Available"] = "yes" if product["available"] else "no"
    figures = [
        Figure("Views", totals.get("view_count")),
        Figure("Put into carts", totals.get("add_to_carts")),
        Figure("Purchases", totals.get("purchases")),
        Figure("Purchases per hundred views", totals.get("conversion_rate"), "percent"),
        Figure("Revenue", totals.get("revenue"), "money"),
        Figure("Refunds", totals.get("refunds"), "money"),
    ]
    return sheet(
        source,
        reader,
        title=product.get("name") or product_id,
        filters=_range_filters(asked),
        picture=product.get("image"),
        facts={name: fact for name, fact in facts.items() if fact},
        figures=figures if totals else [],
        charts=[
            Chart(
                id_,
                title,
                unit,
                labels,
                [Series(title, [days.get(str(day), {}).get(name) for day in asked.days])],
                form="bar",
                kind="money" if name == "revenue" else "number",
            )
            for id_, title, unit, name in (
                ("views", "Views", "a day", "view_count"),
                ("revenue", "Revenue", reader.unit("money"), "revenue"),
            )
        ],
        tables=[
            (
                related(reader, "similar", "Similar products", similar.rows("items")),
                related(reader, "together", "Bought together with it", together.rows("items")),
            )
        ],
    )


def related(reader: Reader, id_: str, title: str, items: list[dict[str, Any]]) -> Listing:
    """Return a table of products that go with one."""
    return Listing(
        id_,
        title,
        ["Product", "Why", "Price"],
        [
            [
                product_cell(item),
                Cell(item["reason"]),
                Cell(reader.money(item["price"]), is_number=True),
            ]
            for item in items
        ],
        empty="There are too few visits or orders to say.",
    )
