"""Addresses that events are sent to."""

CALLS = ("track", "page", "screen", "identify", "alias", "group")
"""Segment's calls of one event each."""
ROUTES: dict[str, str | None] = {
    "/api/events": None,
    **{f"/v1/{call}": call for call in CALLS},
    "/v1/batch": None,
    "/v1/import": None,
    # As browsers send them, whose filters know the long ones.
    **{f"/v1/{call[0]}": call for call in CALLS},
    "/v1/b": None,
    "/batch": None,
}
"""Segment's call, or None, of each address; `/batch` is PostHog's. A slash may follow."""


def route_of(path: str) -> str | None:
    """Return the collector's route at an address, None where it has none."""
    route = path.removesuffix("/")
    return route if route in ROUTES else None
