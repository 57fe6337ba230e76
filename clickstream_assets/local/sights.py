"""Sights of a demo: what there is to see, and the command or address that shows it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from clickstream_assets.settings import Settings

Ask = Callable[[str], dict[str, Any]]
"""Returns the API's answer to a path."""


class Sight(NamedTuple):
    """Something to look at: `found` says what is there, `show` are commands as they are typed, or addresses."""

    title: str
    found: str
    show: list[str]


@dataclass(frozen=True)
class Addresses:
    """Addresses of the two servers that are looked at in a browser, and the command line's program as it is typed."""

    dagster: str
    api: str
    program: str

    def curl(self, path: str) -> str:
        """Return the command that asks the API for a path."""
        return f"curl '{self.api}{path}'"


def sights(result: dict[str, Any], ask: Ask, at: Addresses, settings: Settings) -> Iterator[Sight]:
    """Look at what a demo's events have become.

    Args:
        result: Counts, and a sample recommendation.
        ask: Asks the API.
        at: Where to look.
        settings: Thresholds of the alerts.
    """
    yield Sight("The shop", "today, trends, products, customers, recommendations, reports", [f"{at.api}/"])
    yield Sight(
        "Tables", "all of them and the runs that made them, as a graph", [f"{at.dagster}/asset-groups"]
    )
    user_id, item = result["sample"]["user_id"], result["sample"]["items"][0]
    first = item["name"] or item["product_id"]
    yield Sight(
        "Recommendations",
        f"for {result['users_with_recommendations']:,} users; {user_id}'s first is {first}, by "
        f"{item['algorithm']}: {item['reason']}",
        [at.curl(result["sample"]["path"])],
    )
    if result["person"]:
        path = f"/api/persons/{quote(result['person'], safe='')}"
        ids = ", ".join(tied["anonymous_id"] for tied in ask(path)["anonymous_ids"])
        yield Sight("Persons", f"{result['users']:,}; {result['person']} came as {ids} too", [at.curl(path)])
    yield Sight("Flash-sale alerts", _alerts(result["alerts"], ask, settings), [at.curl("/api/alerts")])
    rejected = f"{result['rejected']:,} of {result['raw']:,}, with the rule that each broke"
    yield Sight("Rejected records", rejected, [f"{at.program} rejected list"])
    day, figures = _report(ask)
    if day:
        yield Sight(f"Report of {day}", figures, [f"{at.program} report {day}", f"{at.api}/reports/{day}"])
        steps = f"/api/funnel?date={day}&dimension=overall"
        yield Sight(f"Conversion on {day}", _conversion(ask(steps)["funnel"]), [at.curl(steps)])


def further(at: Addresses) -> Iterator[Sight]:
    """Name what can be done next."""
    yield Sight("All routes of the API", "to be tried", [f"{at.api}/docs"])
    yield Sight("More events", "until Ctrl-C; everything follows them", [f"{at.program} simulate"])


def _alerts(count: int, ask: Ask, settings: Settings) -> str:
    if not count:
        return (
            f"none: no product had more than {settings.views_threshold} views and fewer than "
            f"{settings.purchases_threshold} purchases within {settings.window_duration.total_seconds() / 60:g} minutes"
        )
    last = ask("/api/alerts?limit=1")["alerts"][0]
    start, end = (last[name].replace("T", " ")[:16] for name in ("window_start", "window_end"))
    return (
        f"{count:,}; the last: {last['product_id']} with {last['views']:,} views and {last['purchases']:,} purchases, "
        f"{start} to {end[11:]} UTC"
    )


def _report(ask: Ask) -> tuple[str | None, str]:
    """Return the newest day that is over and has a report, and its headline."""
    days = ask("/api/reports?limit=2")["reports"]
    if not days:
        return None, ""
    # The newest one still goes on.
    row = days[-1]
    figures = ", ".join(
        f"{row[name] or 0:,} {name.split('_')[-1]}" for name in ("total_events", "sessions", "orders")
    )
    if row["refunds"]:
        figures += f", {row['refunds']:,.2f} of {row['revenue']:,.2f} given back"
    return row["report_date"], figures


def _conversion(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return "nobody viewed anything"
    counts = {step["step"]: (step["users"], step["conversion_from_first"]) for step in steps}
    (viewed, _), (filled, into), (bought, rate) = (
        counts[name] for name in ("view", "add_to_cart", "purchase")
    )
    return f"of {viewed:,} users who viewed, {filled:,} filled a cart ({into:g} %) and {bought:,} bought ({rate:g} %)"
