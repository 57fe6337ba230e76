"""Scopes that views need: each says its own, beside its route, or the application does not start."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from clickstream_assets.keys import Scope

View = TypeVar("View", bound=Callable[..., Any])
_NEEDED = "clickstream_needs"


class Needed(NamedTuple):
    """Need of a view.

    Attributes:
        scope: The scope of its answers; None if everybody may have them.
        parameters: The scope instead, of requests with a parameter.
    """

    scope: Scope | None
    parameters: Mapping[str, Scope]

    def by(self, asked: Container[str]) -> Scope | None:
        """Return the scope that a request needs, by its parameters; None if it needs none."""
        return next((scope for name, scope in self.parameters.items() if name in asked), self.scope)


def needs(scope: Scope | None, **parameters: Scope) -> Callable[[View], View]:
    """Say which scope a view needs.

    Args:
        scope: `personal` where an answer is about one person, or lists persons; `read` for figures; None for what
            everybody may have.
        **parameters: another scope, of requests with a parameter.
    """

    def decorate(view: View) -> View:
        setattr(view, _NEEDED, Needed(scope, parameters))
        return view

    return decorate


def needed_by(view: Callable[..., Any] | None) -> Needed:
    """Return what a view needs; of an address without one, as of figures."""
    return Needed(Scope.READ, {}) if view is None else getattr(view, _NEEDED)


def refuse_unstated(views: Iterable[tuple[str, Callable[..., Any]]]) -> None:
    """Refuse an application of which a view does not say what it needs.

    Args:
        views: each with its endpoint.

    Raises:
        TypeError: naming them.
    """
    unstated = [endpoint for endpoint, view in views if not hasattr(view, _NEEDED)]
    if unstated:
        raise TypeError(
            f"{', '.join(unstated)}: which scope does it need? Put @needs(Scope.READ) on it, or Scope.PERSONAL if "
            "an answer is about one person"
        )
