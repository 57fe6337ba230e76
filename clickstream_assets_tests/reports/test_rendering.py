"""The report as text and as a page."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser

from clickstream_assets.reports.document import DayRows, Report, make_report
from clickstream_assets.reports.page import render_html
from clickstream_assets.reports.text import render_text
from clickstream_assets_tests.reports.days import DAY, NOW, ROWS, category, product, report, summary

# As the older text has it, line by line.
OLDER_LINES = """\
Daily E-commerce Summary - 2024-05-08
============================================================

Total Events: 28123

USER SEGMENTATION
----------------------------------------
- Buyers: 434
- Window Shoppers: 2876

TOP 5 VIEWED PRODUCTS
----------------------------------------
1. p1 - 900 views
2. p2 - 70 views
3. p3 - 70 views
4. p5 - 1 views

CONVERSION RATES BY PRODUCT CATEGORY
----------------------------------------
Category             Views  Purchases       Rate
---------------------------------------------
electronics           5000        600     12.00%
books                 3000        150      5.00%
clothing              3000        150      5.00%
"""
VOID = {"meta", "br"}
HOSTILE = '<script>alert("1")</script>&'


def test_the_text_begins_and_ends_as_the_older_one_does():
    text = render_text(report())
    assert text.startswith(OLDER_LINES)
    assert text.endswith(f"\n\n{'=' * 60}\nReport generated at: 2024-05-09T02:00:03+00:00")


def test_what_is_new_comes_after_it():
    text = render_text(report(summaries={DAY - timedelta(days=7): summary(total_events=20000)}))
    more = text.removeprefix(OLDER_LINES).splitlines()
    assert "Events                  28,123            -       +40.6%" in more
    assert "Revenue              47,794.53            -        +0.0%" in more
    assert "Bounce rate             18.23%            -     +0.00 pp" in more
    assert "Put into a cart      1,200     38.71%" in more
    # What the three counts of those who purchased mean.
    assert "Buyers purchased on this day, whatever they did before; one" in more
    start = more.index("FROM VIEW TO PURCHASE") + 2
    assert " ".join(more[start : start + 3]).startswith(
        "Users who viewed on this day, by the step that they came to"
    )
    assert "Carts, not users: one user can fill several, and buy without" in more
    assert "- Abandoned: 120" in more
    assert "- champions: 30" in more
    assert "(direct)                         600      40,000.00" in more
    assert "Left out as bots': 1,931 events in 31 sessions" in more


def test_a_day_without_events_says_so():
    empty = report(DayRows())
    assert "Total Events: 0\n\nThere were no events on this day.\n" in render_text(empty)
    assert "FIGURES" not in render_text(empty)
    assert "There were no events on this day." in render_html(empty)
    assert "From view to purchase" not in render_html(empty)


class Page(HTMLParser):
    """Holds that each tag is closed by its own, and collects texts and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_page_is_well_formed_and_says_what_the_report_says():
    html = render_html(report(summaries={DAY - timedelta(days=1): summary(total_events=30000)}))
    assert html.startswith("<!DOCTYPE html>")
    text = words(Page(html).text)
    for part in (
        "Events 28,123 -6.3% in 1 day",
        "Buyers purchased on this day, whatever they did before; one can have several orders. Buyers 434 13.11%",
        "Not all buyers came this way. Viewed",
        "Carts, not users: one user can fill several, and buy without any.",
        "Window shoppers 2,876 86.89%",
        "Put into a cart 1,200 38.71%",
        "1. p1 900",
        "electronics 600 of 5,000 12.00%",
        "Abandoned 120",
        "champions 30",
        "(direct) 600 orders 40,000.00",
        "Report generated at: 2024-05-09T02:00:03+00:00",
    ):
        assert part in text
    # The week before has no report.
    assert "in 7 days" not in text


def test_the_page_runs_nothing_and_fetches_nothing():
    page = Page(render_html(report()))
    assert page.tags <= {"html", "head", "meta", "title", "body", "table", "tr", "td", "div", "span", "br"}
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} | (names & {"src", "href", "background"})
    assert not [value for _, value in page.attributes if "url(" in value or "//" in value]


def test_every_value_is_escaped():
    rows = DayRows(
        summary=ROWS.summary,
        products=[product(HOSTILE, 5, 1)],
        categories=[category(HOSTILE, 5, 1, "20.00")],
        customers={HOSTILE: 1},
        campaigns=[{"campaign": HOSTILE, "orders": 1, "revenue": 1}],
    )
    html = render_html(report(rows))
    assert "<script" not in html
    assert Page(html).text.count(HOSTILE) == 4


def test_text_and_page_are_made_from_the_stored_json_alone():
    made = report()
    stored = json.loads(json.dumps(made))
    assert render_text(stored) == render_text(made)
    assert render_html(stored) == render_html(made)


def test_the_longest_bar_is_whole_and_the_smallest_can_be_seen():
    rows = DayRows(summary=ROWS.summary, products=[product("a", 10_000, 1), product("b", 1, 2)])
    widths = [value for name, value in Page(render_html(report(rows))).attributes if name == "width"]
    assert widths.count("100%") > 1
    assert "1%" in widths


def a_large_shop() -> Report:
    """A report of 114 categories and 200 campaigns with long names, in three currencies, while the day goes on."""
    rows = DayRows(
        summary=summary(currencies=["EUR", "JPY", "USD"], unconverted=1234, revenue=Decimal("11223344.5500")),
        products=ROWS.products,
        categories=[
            category(
                f"appliances.environment.vacuum.{number:03}", 1000 + number, number, f"{number / 11:.2f}"
            )
            for number in range(114)
        ],
        campaigns=[
            {
                "campaign": f"utm_newsletter_2019_week_{number:03}_segment_of_returning_customers",
                "orders": Decimal(10),
                "revenue": Decimal(1000 - number),
            }
            for number in range(200)
        ],
    )
    return make_report(DAY, rows, {}, NOW - timedelta(hours=12))


def test_a_large_shops_mail_is_not_cut_off_and_says_what_it_leaves_out():
    html = render_html(a_large_shop())
    # Gmail cuts off at 102 KB.
    assert len(html.encode()) < 60_000
    text = words(Page(html).text)
    assert "appliances.environment.vacuum.113 113 of 1,113 10.27%" in text
    assert "appliances.environment.vacuum.099 99 of 1,099 9.00%" in text
    assert "vacuum.098" not in text
    views, purchases = sum(range(1000, 1099)), sum(range(99))
    assert f"99 more {purchases:,} of {views:,} {100 * purchases / views:.2f}%" in text
    assert f"185 more 1,850 orders {sum(range(801, 986)):,}.00" in text
    assert (
        "Amounts are in EUR. 1,234 purchases and refunds in another currency (JPY, USD) have no exchange rate"
        in text
    )
    assert "Amounts are in EUR." in words(Page(render_html(report())).text)


def test_a_day_that_is_not_over_says_so():
    for rendered in (render_text(a_large_shop()), render_html(a_large_shop())):
        assert "The day is not over: its figures so far, compared with whole days." in rendered
    for rendered in (render_text(report()), render_html(report())):
        assert "not over" not in rendered


def test_long_names_stay_in_their_columns():
    lines = render_text(a_large_shop()).splitlines()
    start = lines.index("CONVERSION RATES BY PRODUCT CATEGORY")
    table = [lines[start + 2], *lines[start + 4 : start + 118]]
    assert {len(line) for line in table} == {len("appliances.environment.vacuum.000") + 33}
    campaigns = lines[lines.index("CAMPAIGNS (LAST TOUCH)") + 2 :][:17]
    assert {len(line) for line in campaigns} == {40 + 26}
    assert campaigns[1].startswith("utm_newsletter_2019_week_000_segment_of… ")
    assert campaigns[-1].startswith("185 more ")


def test_a_product_is_named_with_its_id_where_its_name_is_known():
    named = report()
    first, *others = named["top_5_viewed_products"]
    named["top_5_viewed_products"] = [
        {**first, "name": HOSTILE},
        {**others[0], "name": "x" * 99},
        *others[1:],
    ]
    lines = render_text(named).splitlines()
    assert f"1. {HOSTILE} (p1) - 900 views" in lines
    assert f"2. {'x' * 39}… (p2) - 70 views" in lines
    assert "3. p3 - 70 views" in lines
    page = render_html(named)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
