"""What each page has to show, by the answers of a source."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from clickstream_assets_tests.proofs.pages.shown import (
    NOTHING,
    Age,
    Change,
    Chart,
    Contents,
    Number,
    Sentence,
    Shown,
    Words,
    day_words,
    full_day,
    moment,
    money,
    percent,
    weekday,
)
from clickstream_assets_tests.proofs.pages.sources import Row, Source

ONE = timedelta(days=1)
HOUR = timedelta(hours=1)
# As pages order them: the best first.
SEGMENTS = (
    *(
        "champions",
        "loyal",
        "potential_loyalist",
        "new_customer",
        "promising",
        "need_attention",
        "about_to_sleep",
    ),
    *("at_risk", "cannot_lose", "hibernating", "lost"),
)
STEPS = {"view": "Viewed", "add_to_cart": "Put into a cart", "purchase": "Bought"}


def as_day(value: date | str) -> date:
    """Return a day, which JSON has as text."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def as_time(value: datetime | str) -> datetime:
    """Return a moment, which JSON has as text."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


class Shop:
    """What all pages of a shop have in common."""

    def __init__(self, source: Source) -> None:
        said = source.one("/api/shop")
        self.currency: str | None = said["currency"]
        self.first, self.last, self.today = (
            as_day(said[name]) for name in ("first_day", "last_day", "today")
        )

    def money(self, value: Any) -> Number:
        """Return an amount in the shop's currency."""
        return money(value, self.currency)

    def how(self, kind: str) -> Callable[[Any], Shown]:
        """Return how values of a kind are written."""
        return {"money": self.money, "percent": percent, "number": Number}[kind]

    def unit(self, kind: str, of_number: str) -> str:
        """Return what values of a kind are."""
        return {"money": self.currency or "amount", "percent": "per cent", "number": of_number}[kind]


def days_of(first: date, last: date) -> list[date]:
    """Return all days of a range."""
    return [first + number * ONE for number in range((last - first).days + 1)]


def by_day(rows: Iterable[Row]) -> dict[date, Row]:
    """Return rows by their days."""
    return {as_day(row["report_date"]): row for row in rows}


def name_of(product: Mapping[str, Any]) -> Words:
    """Return what a product is called."""
    return Words(product.get("name") or product["product_id"])


def names_of(source: Source, product_ids: Iterable[str | None]) -> dict[str, str]:
    """Return what products are called, by their ids."""
    asked = sorted(set(filter(None, product_ids)))
    if not asked:
        return {}
    products = source.rows("/api/catalogue", "catalogue", product_id=asked, limit=len(asked))
    return {its: its for its in asked} | {row["product_id"]: row["name"] for row in products if row["name"]}


def today(source: Source, day: date | None = None) -> Contents:
    """Return the page of a day: the newest one by default."""
    shop = Shop(source)
    day = day or shop.last
    is_now = day == shop.today
    names = ("yesterday", "a week ago") if is_now else ("the day before", "a week before")
    before = dict(zip(names, (day - ONE, day - 7 * ONE), strict=True))
    summaries: dict[date, Row | None] = {}
    hours: dict[date, dict[int, Row]] = {}
    for each in (day, *before.values()):
        summaries[each] = next(iter(source.rows("/api/days", "days", date=each)), None)
        begin = datetime(each.year, each.month, each.day, tzinfo=UTC)
        rows = source.rows("/api/hours", "hours", date=each)
        hours[each] = {(as_time(row["hour_start"]) - begin) // HOUR: row for row in rows}
    latest = max(hours[day]) if is_now and hours[day] else None

    def figure(name: str, its: date) -> Any:
        summary = summaries[its]
        if summary is None or latest is None:
            return summary and summary[name]
        so_far = [row for hour, row in hours[its].items() if hour <= latest]
        if name == "conversion_rate":
            visits = sum(row["sessions"] for row in so_far)
            return (
                100 * Decimal(sum(row["converted_sessions"] for row in so_far)) / visits if visits else None
            )
        return sum(row[name] for row in so_far)

    page = Contents()
    for name, label, kind in (
        ("net_revenue", "Revenue less refunds", "money"),
        ("orders", "Orders", "number"),
        ("conversion_rate", "Visits that bought", "percent"),
        ("sessions", "Visits", "number"),
        ("users", "Visitors", "number"),
        ("add_to_carts", "Put into carts", "number"),
    ):
        # Nobody counts the visitors of an hour and all before it.
        is_compared = name != "users" or latest is None
        now = figure(name, day) if is_compared else (summaries[day] or {}).get(name)
        changes = [
            Change(now, then, f"against {since}")
            for since, its in before.items()
            if is_compared and now is not None and (then := figure(name, its)) is not None
        ]
        page.figures[label] = [shop.how(kind)(now), *changes]
    places = [hour for its in hours.values() for hour in its]
    span = range(min(places), max(places) + 1) if places else range(0)
    for title, unit, name, kind in (
        ("Revenue by hour", shop.unit("money", ""), "revenue", "money"),
        ("Orders by hour", "orders", "orders", "number"),
        ("Visits by hour of their start", "visits", "sessions", "number"),
        ("Put into carts by hour", "events", "add_to_carts", "number"),
    ):
        series = {
            label: [
                None
                if not hours[its] or (its == day and latest is not None and hour > latest)
                else hours[its].get(hour, {}).get(name, 0)
                for hour in span
            ]
            for label, its in (
                (day_words(day), day),
                *((since.capitalize(), its) for since, its in before.items()),
            )
        }
        page.charts[title] = Chart([f"{hour:02}:00" for hour in span], series, unit, shop.how(kind))
    page.tables["Alerts now: Product"] = [
        [
            name_of(alert),
            Number(alert["views"]),
            Number(alert["purchases"]),
            moment(alert["first_window_start"]),
        ]
        for alert in source.rows("/api/alerts", "alerts", state="open")
    ]
    events = source.rows("/real-time-events", "real_time_events", limit=10)
    called = names_of(source, (event["product_id"] for event in events))
    page.tables["Live events: Time"] = [
        [
            moment(event["event_time"]),
            Words(event["event_type"].replace("_", " ")),
            Words(called.get(event["product_id"]) or event["query"] or NOTHING),
            Words(event["user_id"] or event["anonymous_id"] or NOTHING),
        ]
        for event in events
    ]
    until = f", until {latest + 1:02}:00; earlier days until the same time" if latest is not None else ""
    page.texts.append(Words(f"{full_day(day)}{until}."))
    if not is_now:
        page.texts.append(Words(day_words(day)))
    return page


OF_THE_SHOP = {
    "net_revenue": ("Revenue less refunds", "money", True),
    "revenue": ("Revenue", "money", True),
    "refunds": ("Refunds", "money", True),
    "orders": ("Orders", "number", True),
    "average_order_value": ("Average order", "money", False),
    "conversion_rate": ("Visits that bought", "percent", False),
    "sessions": ("Visits", "number", True),
    "users": ("Visitors a day", "number", False),
    "buyer_count": ("Buyers a day", "number", False),
    "buyer_rate": ("Visitors who bought", "percent", False),
    "bounce_rate": ("Visits of one event", "percent", False),
    "views": ("Product views", "number", True),
    "add_to_carts": ("Put into carts", "number", True),
    "total_events": ("Events", "number", True),
    "bot_events": ("Events of bots", "number", True),
}
"""Figures of the whole shop: label, kind, and whether days add up."""
BY_GROUP = {
    "category": {
        "net_revenue": ("Revenue less refunds", "money"),
        "revenue": ("Revenue", "money"),
        "purchases": ("Purchases", "number"),
        "views": ("Product views", "number"),
        "add_to_carts": ("Put into carts", "number"),
        "conversion_rate": ("Purchases per hundred views", "percent"),
    },
    "campaign": {"revenue": ("Revenue", "money"), "orders": ("Orders", "number")},
    "segment": {"users": ("Persons", "number")},
}
"""Figures of groups: label and kind."""


def trends(source: Source, figure: str, *, before: bool = False) -> Contents:
    """Return the page of a figure of the whole shop over 28 days, with the 28 before them."""
    shop = Shop(source)
    days, days_before = (
        days_of(shop.last - 27 * ONE, shop.last),
        days_of(shop.last - 55 * ONE, shop.last - 28 * ONE),
    )
    its, then = (
        by_day(source.rows("/api/days", "days", since=each[0], until=each[-1]))
        for each in (days, days_before)
    )
    label, kind, _ = OF_THE_SHOP[figure]
    series = {label: [its.get(day, {}).get(figure) for day in days]}
    if before:
        series["The days before"] = [then.get(day, {}).get(figure) for day in days_before]
    page = Contents()
    page.charts[label] = Chart(
        [weekday(day) for day in days], series, shop.unit(kind, "a day"), shop.how(kind)
    )
    for name, (name_shown, its_kind, is_summed) in OF_THE_SHOP.items():
        if is_summed:
            now = sum(row[name] for row in its.values())
            changes = (
                [Change(now, sum(row[name] for row in then.values()), "against the days before")]
                if then
                else []
            )
            page.figures[name_shown] = [shop.how(its_kind)(now), *changes]
    return page


def trends_by(source: Source, by: str, figure: str) -> Contents:
    """Return the page of a figure by group over 28 days: of the five largest groups."""
    shop = Shop(source)
    days = days_of(shop.last - 27 * ONE, shop.last)
    span = {"since": days[0], "until": days[-1]}
    rows = {
        "category": partial(source.rows, "/api/categories", "categories", **span),
        "campaign": partial(source.rows, "/api/attribution", "attribution", **span, model="last_touch"),
        "segment": partial(source.rows, "/api/segment-counts", "segments", **span),
    }[by]()
    label, kind = BY_GROUP[by][figure]
    there = {as_day(row["report_date"]) for row in rows}
    of_group: dict[str, dict[date, Row]] = defaultdict(dict)
    for row in rows:
        of_group[row[by]][as_day(row["report_date"])] = row
    totals: dict[str, Any] = {}
    for group, its in of_group.items():
        total = sum(row[figure] for row in its.values())
        if figure == "conversion_rate":
            views = sum(row["views"] for row in its.values())
            total = 100 * Decimal(sum(row["purchases"] for row in its.values())) / views if views else 0
        totals[group] = Decimal(total) / len(there) if by == "segment" else total
    shown = sorted(totals, key=lambda group: (-totals[group], group))[:5]
    nothing = None if kind == "percent" else 0

    def called(group: str) -> str:
        return group.replace("_", " ") if by == "segment" else group

    page = Contents()
    unit = shop.unit(kind, "a day")
    page.charts[f"{label} by {by}"] = Chart(
        [weekday(day) for day in days],
        {
            called(group): [
                of_group[group][day][figure] if day in of_group[group] else nothing if day in there else None
                for day in days
            ]
            for group in shown
        },
        unit,
        shop.how(kind),
    )
    page.charts[f"{label} by {by}, {'mean of the days' if by == 'segment' else 'all days'}"] = Chart(
        [called(group) for group in shown],
        {label: [totals[group] for group in shown]},
        unit if by == "segment" else unit.replace("a day", "in all"),
        shop.how(kind),
    )
    return page


def funnel(source: Source, by: str) -> Contents:
    """Return the page of the newest day's funnel, by group."""
    shop = Shop(source)
    days = days_of(shop.last - 27 * ONE, shop.last)
    overall = {
        (as_day(row["report_date"]), row["step"]): row
        for row in source.rows("/api/funnel", "funnel", since=days[0], until=days[-1], dimension="overall")
    }
    page = Contents(
        texts=[
            Words(
                f"{full_day(shop.last)}: who viewed a product, by how far they came from there, in order and in time."
            )
        ]
    )
    page.charts["From view to purchase"] = Chart(
        list(STEPS.values()),
        {"Visitors": [overall.get((shop.last, step), {}).get("users") for step in STEPS]},
        "visitors",
    )
    page.charts["Of the viewers of each day"] = Chart(
        [weekday(day) for day in days],
        {
            label: [overall.get((day, step), {}).get("conversion_from_first") for day in days]
            for step, label in STEPS.items()
            if step != "view"
        },
        "per cent",
        percent,
    )
    groups: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in source.rows("/api/funnel", "funnel", date=shop.last, dimension=by):
        groups[row["value"]][row["step"]] = row
    heading = {
        "category": "category",
        "segment": "what they did that day",
        "rfm": "customers' segment the day before",
    }
    page.tables[f"By {heading[by]}: Group"] = [
        [
            Words(group if by == "category" else group.replace("_", " ")),
            *(Number(steps[step]["users"]) for step in STEPS),
            percent(100 * Decimal(steps["purchase"]["users"]) / steps["view"]["users"]),
        ]
        for group, steps in sorted(groups.items(), key=lambda item: (-item[1]["view"]["users"], item[0]))
    ]
    return page


def _begin(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat()


def _alerts(source: Source, first: date, last: date, limit: int) -> list[list[Shown]]:
    span = {"since": _begin(first), "until": _begin(last + ONE)}
    return [
        [
            name_of(alert),
            moment(alert["first_window_start"]),
            Words(alert["state"]),
            Number(alert["views"]),
            Number(alert["purchases"]),
        ]
        for alert in source.rows("/api/alerts", "alerts", **span, limit=limit)
    ]


def products(
    source: Source, sort: str = "view_count", offset: int = 0, category: str | None = None
) -> Contents:
    """Return the page of the products of the last seven days."""
    shop = Shop(source)
    first = shop.last - 6 * ONE
    rows = source.rows(
        "/api/product-totals",
        "products",
        since=first,
        until=shop.last,
        sort=sort,
        limit=50,
        offset=offset,
        category=category,
    )
    page = Contents()
    page.tables["Products: Product"] = [
        [
            name_of(row),
            *(Number(row[name]) for name in ("view_count", "add_to_carts", "purchases")),
            percent(row["conversion_rate"]),
            *(shop.money(row[name]) for name in ("revenue", "refunds")),
        ]
        for row in rows
    ]
    page.tables["Flash sales of these days: Product"] = _alerts(source, first, shop.last, 20)
    return page


def product(source: Source, product_id: str) -> Contents:
    """Return the page of a product, of the last 28 days."""
    shop = Shop(source)
    days = days_of(shop.last - 27 * ONE, shop.last)
    said = source.one(f"/api/products/{product_id}", since=days[0], until=days[-1])
    known, totals, its = said["product"], said["totals"], by_day(said["days"])
    page = Contents()
    facts = {
        "Id": Words(product_id),
        "Category": known["category"] and Words(known["category"]),
        "Brand": known["brand"] and Words(known["brand"]),
        "Price": known["price"] is not None and shop.money(known["price"]),
    }
    if known["available"] is not None:
        facts["Available"] = Words("yes" if known["available"] else "no")
    page.facts = {name: fact for name, fact in facts.items() if fact}
    page.figures = {
        "Views": [Number(totals["view_count"])],
        "Put into carts": [Number(totals["add_to_carts"])],
        "Purchases": [Number(totals["purchases"])],
        "Purchases per hundred views": [percent(totals["conversion_rate"])],
        "Revenue": [shop.money(totals["revenue"])],
        "Refunds": [shop.money(totals["refunds"])],
    }
    for title, name, kind in (("Views", "view_count", "number"), ("Revenue", "revenue", "money")):
        values = [its.get(day, {}).get(name) for day in days]
        page.charts[title] = Chart(
            [weekday(day) for day in days], {title: values}, shop.unit(kind, "a day"), shop.how(kind)
        )
    for title, path in (("Similar products", "item-to-item"), ("Bought together with it", "bought-together")):
        page.tables[f"{title}: Product"] = [
            [name_of(item), Words(item["reason"]), shop.money(item["price"])]
            for item in source.one(f"/api/{path}/{product_id}").get("items", [])
        ]
    page.texts = [Words(known.get("name") or product_id)]
    return page


def customers(source: Source) -> Contents:
    """Return the page of customers, as of the newest day."""
    shop = Shop(source)
    counts = {
        (row["kind"], row["segment"]): row["users"]
        for row in source.rows("/api/segments", "segments", date=shop.last)
    }
    page = Contents()
    there = [name for name in SEGMENTS if ("rfm", name) in counts]
    page.charts["Customers by segment"] = Chart(
        [name.replace("_", " ") for name in there],
        {"Customers": [counts["rfm", name] for name in there]},
        "customers",
    )
    activity = (("activity", "buyer"), ("activity", "window_shopper"), ("carts", "cart_abandoner"))
    page.charts["What visitors did"] = Chart(
        ["Bought that day", "Were there and did not buy", "Left a cart in 30 days"],
        {"Persons": [counts.get(each, 0) for each in activity]},
        "persons",
    )

    def segment(name: str | None) -> Words:
        return Words(name.replace("_", " ") if name else "no customer")

    moves = source.rows("/api/segment-moves", "moves", date=shop.last, days=7)
    page.tables["Moves between segments in 7 days: From"] = [
        [segment(move["from_segment"]), segment(move["to_segment"]), Number(move["users"])]
        for move in moves
        if move["from_segment"] != move["to_segment"]
    ][:20]
    cohorts = {
        (as_day(row["cohort_week"]), row["weeks_since"]): row
        for row in source.rows(
            "/api/cohorts", "cohorts", since=shop.last - timedelta(weeks=12), until=shop.last
        )
    }
    later = range(max((since for _, since in cohorts), default=-1) + 1)
    page.tables["Who comes back: First there in the week of"] = [
        [
            Words(day_words(week)),
            Number(cohorts[week, 0]["users"]),
            *(_share(cohorts.get((week, since))) for since in later),
        ]
        for week in sorted({week for week, _ in cohorts}, reverse=True)
    ]

    def chance(value: Any) -> Number:
        return percent(None if value is None else 100 * Decimal(value), 1)

    page.tables["Who is likely to buy: Person"] = [
        [
            Words(row["user_id"]),
            chance(row["probability_7_days"]),
            chance(row["probability_28_days"]),
            Words("; ".join(row["reasons"])),
        ]
        for row in source.rows("/api/predictions", "predictions", limit=20)
        if row["probability_7_days"] is not None or row["probability_28_days"] is not None
    ]
    carts = source.rows("/api/carts", "carts", state="abandoned", sort="value", limit=20)
    names = names_of(source, (product for row in carts for product in row["product_ids"][:3]))
    page.tables["Carts worth a reminder: Person"] = [
        [
            Words(row["user_id"]),
            shop.money(row["value"]),
            Words(_some(row["product_ids"], names)),
            moment(row["abandoned_at"]),
        ]
        for row in carts
    ]
    meanings = "What the segments are: Segment"
    page.tables[meanings] = [[Words(name.replace("_", " ")), _ANYTHING] for name in SEGMENTS]
    page.texts = [
        Words("Moves between segments in 7 days"),
    ]
    return page


def _share(row: Row | None) -> Shown:
    if row is None:
        return Words("")
    return percent(100 * Decimal(row["active_users"]) / row["users"], 0)


class _Anything(Shown):
    """A text without a digit."""

    def is_in(self, text: str) -> bool:
        """See the base class."""
        return bool(text) and not any(character.isdigit() for character in text)


_ANYTHING = _Anything()


def _some(product_ids: Sequence[str], names: Mapping[str, str]) -> str:
    """Write the first three products of a cart, and how many more there are."""
    text = ", ".join(names[each] for each in product_ids[:3])
    return text if len(product_ids) <= 3 else f"{text} and {len(product_ids) - 3} more"


def models(source: Source) -> Contents:
    """Return the page of recommendations where nobody and nothing is asked for."""
    Shop(source)
    page = _of_models(source)
    trained = [
        row for row in source.rows("/api/models", "models", n=90) if row["answers"] == "recommendations"
    ]
    trained.sort(key=lambda row: as_time(row["trained_at"]))
    names = {
        "next": "What is new to known shoppers",
        "new": "What unknown shoppers take",
        "purchases": "What is bought, again or not",
    }
    judged = [
        {
            metric["target"]: metric["values"]["ndcg@10"]
            # The first of a target is the version's own.
            for metric in reversed(row["metrics"])
            if metric["algorithm"] == row["algorithm"]
        }
        for row in trained
    ]
    page.charts["How well the lists found what they had not seen"] = Chart(
        [moment(row["trained_at"]).text for row in trained],
        {
            name: [values.get(target) for values in judged]
            for target, name in names.items()
            if any(target in values for values in judged)
        },
        "nDCG, at best one",
        partial(Number, decimals=3),
    )
    return page


def _of_models(source: Source) -> Contents:
    page = Contents()
    page.tables["The models' record: Version"] = [
        [
            Words(model["model_version"]),
            Words(model["answers"].replace("_", " ")),
            Words(model["algorithm"].replace("_", " ")),
            Words("yes" if model["is_served"] else "no"),
            moment(model["trained_at"]),
            _judged(model),
        ]
        for model in source.rows("/api/models", "models", n=90)[:20]
    ]
    page.tables["Experiments: Arm"] = []
    assert source.rows("/api/experiments", "experiments") == []
    return page


def recommendations(source: Source, person: str) -> Contents:
    """Return the page of what is recommended to a person."""
    shop = Shop(source)
    page = Contents()

    def listed(title: str, items: Sequence[Row]) -> None:
        page.tables[f"{title}: Product"] = [
            [
                name_of(item),
                Words(item["reason"]),
                Words(item["algorithm"].replace("_", " ")),
                shop.money(item["price"]),
            ]
            for item in items
        ]

    listed("Recommended", source.one(f"/api/recommend/{person}", n=10)["items"])
    events = source.rows("/real-time-events", "real_time_events", user_id=person, limit=10)
    names = names_of(source, (event["product_id"] for event in events))
    page.tables["What they did last: Event"] = [
        [
            Words(event["event_type"].replace("_", " ")),
            Words(names.get(event["product_id"]) or event["query"] or ""),
            moment(event["event_time"]),
        ]
        for event in events
    ]
    listed("To buy again", source.one(f"/api/buy-again/{person}", n=10)["items"])
    page.tables["Their visits: Began"] = [
        [
            moment(visit["start_time"]),
            *(Number(visit[name]) for name in ("total_events", "views", "purchases")),
            shop.money(visit["revenue"]),
        ]
        for visit in source.rows("/sessions", "sessions", user_id=person, sort="start_time", limit=10)
    ]
    foretold = source.one(f"/api/predictions/{person}")
    chances = [
        (f"Within {days} days", foretold[f"probability_{days}_days"])
        for days in (7, 28)
        if foretold.get(f"probability_{days}_days") is not None
    ]
    if session := foretold.get("session"):
        chances.append(("In this visit", session["probability"]))
    page.tables["How likely they are to buy: When"] = [
        [Words(when), percent(100 * Decimal(chance), 1)] for when, chance in chances
    ]
    page.tables |= _of_models(source).tables
    page.texts = [Words(f"For {person}.")]
    return page


class _Judged(Shown):
    """The first figure of each target that the model was judged by."""

    def __init__(self, figures: Sequence[tuple[str, Any]]) -> None:
        self.figures = figures

    def __repr__(self) -> str:
        return f"Judged({self.figures})"

    def is_in(self, text: str) -> bool:
        """See the base class."""
        parts = text.split("; ") if text else []
        return len(parts) == len(self.figures) and all(
            part.startswith(f"{words} ") and Number(value, 3).is_in(part.removeprefix(f"{words} "))
            for part, (words, value) in zip(parts, self.figures, strict=True)
        )


def _judged(model: Row) -> Shown:
    figures: dict[str, tuple[str, Any]] = {}
    for metric in model["metrics"]:
        name, value = next(iter(metric["values"].items()), ("", None))
        if metric["algorithm"] == model["algorithm"] and value is not None:
            target, algorithm = (metric[each].replace("_", " ") for each in ("target", "algorithm"))
            # Of a target the first is the version's own.
            figures.setdefault(target, (f"{target}, {algorithm}: {name}", value))
    return _Judged([*figures.values()])


def reports(source: Source, first: date, last: date) -> Contents:
    """Return the index of reports of some days."""
    shop = Shop(source)
    page = Contents()
    page.tables["Daily reports: Day"] = [
        [
            Words(weekday(as_day(row["report_date"]))),
            *(Number(row[name]) for name in ("users", "sessions", "orders")),
            shop.money(row["net_revenue"]),
            percent(row["conversion_rate"]),
        ]
        for row in source.rows("/api/reports", "reports", since=first, until=last)
    ]
    return page


_REPORTED = {
    "net_revenue": ("Revenue less refunds", "money"),
    "revenue": ("Revenue", "money"),
    "refunds": ("Refunds", "money"),
    "orders": ("Orders", "number"),
    "average_order_value": ("Average order", "money"),
    "users": ("Visitors", "number"),
    "buyers": ("Buyers", "number"),
    "sessions": ("Visits", "number"),
    "conversion_rate": ("Visits that bought", "percent"),
    "bounce_rate": ("Visits of one event", "percent"),
    "total_events": ("Events", "number"),
}


def report(source: Source, day: date) -> Contents:
    """Return the page of a day's report."""
    shop = Shop(source)
    said = source.one(f"/api/reports/{day}")
    page = Contents(texts=[Words(f"Report of {day_words(day)}")])
    for name, (label, kind) in _REPORTED.items():
        value = said["buyers"]["count"] if name == "buyers" else said[name]
        changes = [
            Change(value, said["comparison"][with_what][name]["before"], f"against {since}")
            for with_what, since in (("day_before", "the day before"), ("week_before", "a week before"))
            if said["comparison"][with_what][name] is not None
        ]
        page.figures[label] = [shop.how(kind)(value), *changes]
    days = days_of(day - 27 * ONE, day)
    summaries = by_day(source.rows("/api/days", "days", since=days[0], until=day))
    for title, name, kind in (
        ("Revenue less refunds", "net_revenue", "money"),
        ("Visitors", "users", "number"),
    ):
        page.charts[title] = Chart(
            [weekday(each) for each in days],
            {title: [summaries.get(each, {}).get(name) for each in days]},
            shop.unit(kind, "a day"),
            shop.how(kind),
        )
    steps = {row["step"]: row["users"] for row in said["funnel"]}
    names = {"view": "Viewed", "add_to_cart": "Put into a cart", "purchase": "Purchased"}
    page.charts["From view to purchase"] = Chart(
        [names[step] for step in steps], {"Visitors": list(steps.values())}, "visitors"
    )
    segments = said["customer_segments"] or {}
    there = [name for name in SEGMENTS if name in segments]
    assert len(there) == len(segments)
    page.charts["Customers by segment, the best first"] = Chart(
        [name.replace("_", " ") for name in there],
        {"Customers": [segments[name] for name in there]},
        "customers",
    )
    page.tables["Most viewed products: Product"] = [
        [name_of(row), Number(row["views"])] for row in said["top_5_viewed_products"]
    ]
    converting = sorted(
        said["conversion_rates_by_category"].items(), key=lambda item: (-item[1]["conversion_rate"], item[0])
    )
    page.tables["Categories, those that convert best first: Category"] = [
        [
            Words(category),
            Number(counts["views"]),
            Number(counts["purchases"]),
            percent(counts["conversion_rate"]),
        ]
        for category, counts in converting
    ]
    page.tables["Orders by the campaign that was met last: Campaign"] = [
        [Words(row["campaign"]), Number(row["orders"]), shop.money(row["revenue"])]
        for row in said["campaigns"] or ()
    ]
    page.tables["Carts: What happened to them"] = [
        [Words(what), Number(carts)] for what, carts in (said["carts"] or {}).items()
    ]
    page.tables["Flash sales of the day: Product"] = _alerts(source, day, day, 50)
    rejected = Counter[tuple[str, str]]()
    span = {"since": _begin(day), "until": _begin(day + ONE)}
    for row in source.rows("/api/rejected", "rejected", **span, rejected_by="ingest"):
        rejected[row["rule"], row["field"]] += row["records"]
    page.tables["Records that were rejected: Rule"] = [
        [Words(rule), Words(field), Number(records)]
        for (rule, field), records in sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    ]
    return page


_BY = {"rejected": "the ingest", "refused": "Elasticsearch", "left_out": "left out of events"}


def data(source: Source, first: date, last: date) -> Contents:
    """Return the page of the data, with the records that came on some days."""
    shop = Shop(source)
    said = source.one("/api/data")
    source.one("/health/ready")
    ingest = said["ingest"]
    of_today = next((day for day in said["days"] if as_day(day["date"]) == shop.today), None)
    failing = [check for check in said["checks"] if check["is_failing"]]
    overdue = [check for check in said["checks"] if check["is_overdue"] and not check["is_failing"]]
    passed = [check for check in said["checks"] if not check["is_failing"] and not check["is_overdue"]]
    page = Contents()
    page.figures = {
        "Records waiting in Kafka": [Number(ingest["waiting_records"])],
        "Age of the newest event": [Age(ingest["newest_event_at"], after="", never=NOTHING)],
        "Records today": [Number(of_today["received"] if of_today else 0)],
        "Rejected today": [Number(of_today["rejected"] if of_today else 0)],
        "Checks failing": [Number(len(failing))],
        "Wrong now": [Number(len(said["problems"]))],
    }
    counts = Counter[tuple[date, str]]()
    reasons = Counter[tuple[str, str, str]]()
    for row in source.rows("/api/records", "records", since=first, until=last):
        counts[as_day(row["arrival_date"]), row["outcome"]] += row["records"]
        if row["outcome"] in _BY:
            reasons[row["outcome"], row["rule"], row["field"]] += row["records"]
    days = days_of(first, last)
    series = {
        "Events in time": [counts[day, "event"] - counts[day, "late"] for day in days],
        "Events of an earlier day": [counts[day, "late"] for day in days],
        "Duplicates": [counts[day, "duplicate"] for day in days],
        "Conflicts": [counts[day, "conflict"] for day in days],
        "Rejected": [counts[day, "rejected"] for day in days],
    }
    page.charts["Records by day of arrival, by what became of them"] = Chart(
        [weekday(day) for day in days], series if counts else {name: [None] for name in series}, "records"
    )
    received = sum(
        number
        for (_, what), number in counts.items()
        if what in ("event", "duplicate", "conflict", "rejected")
    )
    samples: dict[tuple[str, str], list[Row]] = defaultdict(list)
    span = {"since": _utc(first), "until": _utc(last + ONE)}
    for row in source.rows("/api/rejected/samples", "samples", **span):
        samples[row["rule"], row["field"]].append(row)
    rejected: list[list[Shown]] = []
    for (outcome, rule, field), number in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        rejected.append(
            [
                Words(f"{rule} {field}"),
                Words(_BY[outcome]),
                Number(number),
                percent(100 * Decimal(number) / received if received else None, 2),
            ]
        )
        if outcome == "rejected" and (its := samples[rule, field]):
            rejected.append([Words(f"Samples of {rule} {field} {' '.join(map(_sample, its[:3]))}")])
    page.tables["Rejected, by rule: Rule, field"] = rejected
    page.tables["Streams: Query"] = [
        [
            Words(stream["query"]),
            Words("stands still" if stream["is_failing"] else "runs"),
            Number(stream["waiting_records"]),
            _lasting(stream["latency_seconds"]),
            Number(stream["late_events"]),
            Age(stream["last_batch_at"]),
        ]
        for stream in said["streams"]
    ]
    for caption, checks in (
        ("Checks that fail or are overdue", [*failing, *overdue]),
        ("Checks that passed", passed),
    ):
        if checks:
            page.tables[f"Checks: {caption}"] = [
                [Words(check["check"]), Words(check["asset"]), Words(_state(check)), Age(check["checked_at"])]
                for check in checks
            ]
    page.tables["Jobs: Job"] = [
        [
            Words("assets chosen by hand" if job["job"].startswith("__") else job["job"]),
            Words("failed" if job["is_failing"] else "succeeded" if job["succeeded_at"] else "not run"),
            Age(job["succeeded_at"]),
            Age(job["failed_at"]),
        ]
        for job in said["jobs"]
    ]
    page.tables["Tables: Asset"] = [
        [Words(table["asset"]), Words(table["group"]), Age(table["updated_at"])] for table in said["tables"]
    ]
    page.tables["Tables: Publication"] = [
        [Words(each["asset"]), Age(each["published_at"])] for each in said["published"]
    ]
    page.tables["Wrong now: What"] = [
        [Words(problem["summary"]), Words(problem["severity"]), Age(problem["since"])]
        for problem in said["problems"]
    ]
    page.texts = [
        Sentence(
            *(
                "Last ingest ",
                Age(ingest["ingested_at"]),
                "; newest event of ",
                moment(ingest["newest_event_at"]),
            ),
            *(", newest published one of ", moment(ingest["published_event_at"])),
            *("; records waiting were counted ", Age(ingest["waiting_measured_at"]), "."),
        ),
        Sentence(Number(len(passed)), " that passed"),
        Sentence("All ", Number(len(said["tables"])), ", and when they were last made"),
        Sentence(
            "Measured: ",
            *(
                part
                for number, each in enumerate(said["sources"])
                for part in (
                    ", " if number else "",
                    {"kafka": "Kafka ", "dagster": "Dagster "}[each["source"]],
                    Age(each["measured_at"]),
                )
            ),
            ". Runs, assets and checks: Dagster.",
        ),
    ]
    if not failing and not overdue:
        page.texts.append(
            Sentence("All ", Number(len(said["checks"])), " passed when they were last carried out.")
        )
    if agreement := said["stream_against_batch"]:
        words = "they agree" if agreement["is_agreed"] else "they differ"
        told = f" {agreement['said']}." if agreement["said"] else ""
        page.texts.append(Sentence(f"{words} ", Age(agreement["checked_at"]), f".{told}"))
        for reason, number in agreement["differences"].items():
            if number:
                noun = "window" if number == 1 else "windows"
                design = ", by design" if reason in ("late", "repeated") else ""
                page.texts.append(Sentence(f"{reason}: ", Number(number), f" {noun}{design}"))
    return page


def _utc(day: date) -> str:
    return f"{day}T00:00:00Z"


def _sample(row: Row) -> str:
    value = "no value" if row["rejected_value"] is None else row["rejected_value"]
    item = f", item {row['item']}" if row["item"] > 1 else ""
    place = f"{row['topic']}/{row['partition']} at offset {row['offset']}{item}"
    return f"{value}, {moment(row['kafka_time']).text}, in {place}"


def _lasting(seconds: Any) -> Shown:
    if seconds is None:
        return Words(NOTHING)
    return Age(datetime.now(UTC) - timedelta(seconds=float(seconds)), after="")


def _state(check: Row) -> str:
    if check["is_failing"]:
        return "fails" if check["severity"] == "error" else "warns"
    return "overdue" if check["is_overdue"] else "passed"
