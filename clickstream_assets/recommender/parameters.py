"""Parameters of training, and what a shopper's event of a type is worth."""

import json
from dataclasses import asdict, dataclass, fields, replace
from hashlib import blake2b
from typing import Any, Self

from clickstream_assets.settings import Settings


@dataclass(frozen=True)
class EventWeights:
    """What one event of a type adds to the strength of an interaction."""

    view: float = 1
    add_to_cart: float = 4
    purchase: float = 10

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take them from the settings."""
        return cls(settings.view_weight, settings.add_to_cart_weight, settings.purchase_weight)


USUAL_WEIGHTS = EventWeights()


@dataclass(frozen=True)
class Parameters:
    """Parameters of training; the settings of the same names explain each.

    Those that have a default here do nothing by it: strengths do not age, and neither trend nor category counts.
    """

    factors: int
    iterations: int
    regularization: float
    alpha: float
    seed: int
    half_life_days: float = 0
    trend_days: int = 30
    trend_exponent: float = 0
    category_weight: float = 0
    ease_regularization: float = 20
    ease_products: int = 5000
    ease_share: float = 0.5

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take them from the settings."""
        return cls(
            factors=settings.als_factors,
            iterations=settings.als_iterations,
            regularization=settings.als_regularization,
            alpha=settings.als_alpha,
            seed=settings.model_seed,
            half_life_days=settings.taste_half_life_days,
            trend_days=settings.trend_days,
            trend_exponent=settings.trend_exponent,
            category_weight=settings.category_weight,
            ease_regularization=settings.ease_regularization,
            ease_products=settings.ease_products,
            ease_share=settings.ease_share,
        )

    @property
    def fingerprint(self) -> str:
        """Eight characters that differ where any parameter does."""
        return blake2b(repr(self).encode(), digest_size=4).hexdigest()

    @property
    def as_dict(self) -> dict[str, Any]:
        """The parameters by name."""
        return asdict(self)

    @property
    def as_json(self) -> str:
        """The parameters as JSON, which `read` reads."""
        return json.dumps(self.as_dict)

    def read(self, text: str) -> Self:
        """Return parameters that were written by any version; those that it did not know are these."""
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in json.loads(text).items() if name in known})
