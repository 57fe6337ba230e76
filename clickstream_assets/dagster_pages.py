"""Addresses of pages in Dagster, from the server's name on: whoever has DAGSTER_URL puts it before them."""

from __future__ import annotations

from urllib.parse import quote


def asset_page(asset: str) -> str:
    """Return the page of an asset; `/` in its name separates the parts of its key."""
    return f"/assets/{quote(asset)}"


def check_page(asset: str, check: str) -> str:
    """Return the page of a check of an asset."""
    return f"{asset_page(asset)}?view=checks&checkDetail={quote(check, safe='')}"


def run_page(run_id: str) -> str:
    """Return the page of a run."""
    return f"/runs/{quote(run_id, safe='')}"
