"""The shop's products and users: products, names, prices, brands, tastes and browsers.

All of it follows from an index alone, not from a run's seed: `product_7` costs the same and `user_7` likes
the same in every run, so that runs can follow one another.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import accumulate
from math import inf
from pathlib import Path
from random import Random

import msgspec

CURRENCY = "EUR"
RATES = {"USD": Decimal("0.92"), "GBP": Decimal("1.17"), "PLN": Decimal("0.23")}
"""Worth of a unit of the other currencies that orders can be in, in `CURRENCY`."""

_CATEGORIES = {
    "smartphones": ((149, 1299), ("Norvo", "Kestrel", "Lumio", "Hanari")),
    "laptops": ((399, 2799), ("Altura", "Norvo", "Braxton")),
    "tablets": ((119, 1199), ("Lumio", "Norvo", "Hanari")),
    "headphones": ((19, 399), ("Sonoro", "Auralis", "Kestrel")),
    "smartwatches": ((59, 699), ("Tempora", "Lumio", "Norvo")),
    "cameras": ((199, 2499), ("Optika", "Fieldsen", "Hanari")),
    "gaming": ((29, 899), ("Braxton", "Ludens", "Pixelforge")),
    "accessories": ((5, 99), ("Kabel&Co", "Lumio", "Sonoro", "Basiq")),
}
"""Range of prices and brands, by category."""
CATEGORIES = tuple(_CATEGORIES)
BRANDS = tuple(sorted({brand for _, brands in _CATEGORIES.values() for brand in brands}))
"""All brands, in the order of the alphabet."""


@dataclass(frozen=True, slots=True)
class _Names:
    """What products of a category are called: a word, a model and a kind.

    `kinds` are kinds of products by the price below which a product is one, in `CURRENCY`, the last of any price.
    """

    words: tuple[str, ...]
    models: tuple[str, ...]
    kinds: tuple[tuple[float, str], ...]


def _models(numbers: Iterable[object], variants: Iterable[str]) -> tuple[str, ...]:
    return tuple(" ".join(filter(None, (str(number), variant))) for number in numbers for variant in variants)


_GENERATIONS = ("", *(f"G{number}" for number in range(2, 15)))
_NAMES = {
    "smartphones": _Names(
        ("Aero", "Pulse", "Vertex", "Halo", "Ember", "Drift", "Quanta", "Solis", "Mira", "Onyx"),
        _models(range(3, 23), ("", "Lite", "Pro", "Max")),
        ((inf, "smartphone"),),
    ),
    "laptops": _Names(
        ("Meridian", "Slate", "Summit", "Atlas", "Ridge", "Strata", "Cirrus", "Beacon", "Tundra", "Nimbus"),
        _models(range(13, 18), _GENERATIONS),
        ((inf, "laptop"),),
    ),
    "tablets": _Names(
        ("Canvas", "Folio", "Leaf", "Pane", "Vista", "Quill", "Mosaic", "Sketch", "Fable", "Linen"),
        _models(range(8, 14), _GENERATIONS),
        ((inf, "tablet"),),
    ),
    "headphones": _Names(
        ("Cadence", "Reverb", "Octave", "Timbre", "Aria", "Tempo", "Chorus", "Treble", "Sonata", "Echo"),
        _models(range(100, 1000, 50), ("", "BT", "NC", "Studio")),
        ((60, "earbuds"), (inf, "headphones")),
    ),
    "smartwatches": _Names(
        ("Orbit", "Stride", "Zenith", "Lap", "Equinox", "Ascent", "Tide", "Comet", "Trail", "Solstice"),
        _models(range(2, 22), ("", "S", "Sport", "Classic")),
        ((120, "fitness band"), (inf, "smartwatch")),
    ),
    "cameras": _Names(
        ("Prisma", "Iris", "Focal", "Lucida", "Silver", "Field", "Shutter", "Chroma", "Vantage", "Scout"),
        _models((f"{letter}{number}" for letter in "DRXZ" for number in range(100, 2000, 100)), ("",)),
        ((500, "compact camera"), (inf, "camera")),
    ),
    "gaming": _Names(
        ("Rift", "Vortex", "Rogue", "Phantom", "Titan", "Blaze", "Wraith", "Nexus", "Fury", "Saber"),
        _models(range(2, 22), ("", "Mini", "Pro", "Elite")),
        ((80, "gaming mouse"), (160, "controller"), (350, "gaming keyboard"), (inf, "console")),
    ),
    "accessories": _Names(
        ("Flex", "Link", "Loop", "Snap", "Core", "Swift", "Hub", "Bolt", "Carry", "Dock"),
        _models(range(10, 200, 10), ("", "Go", "Plus", "Duo")),
        ((15, "cable"), (35, "charger"), (65, "power bank"), (inf, "docking station")),
    ),
}
# A prime that no count of names is divisible by: in steps of it each comes once before one comes again, and
# neighbours have little in common.
_NAME_STEP = 307

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1"
_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64"
_BROWSERS = (
    f"{_WINDOWS}) {_WEBKIT} Chrome/131.0.0.0 Safari/537.36",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) {_SAFARI} Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Chrome/131.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_SAFARI} Safari/605.1.15",
    f"{_WINDOWS}; rv:133.0) Gecko/20100101 Firefox/133.0",
    f"{_WINDOWS}) {_WEBKIT} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
)
_BROWSER_WEIGHTS = (30, 25, 22, 9, 6, 6, 2)

ROBOTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
)

# Below Zipf's 1, so that with a hundred products the tail is still seen often enough to be learnt.
_POPULARITY_EXPONENT = 0.7
_REFUSES_CONSENT = 0.03
_SOLD_OUT = 0.04


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the shop.

    Attributes:
        product_id: Its id.
        category: Its category, one of `CATEGORIES`.
        brand: Its brand, one of `BRANDS`.
        price: Its price as JSON with two decimals, in `CURRENCY`.
        cents: The same in hundredths.
        name: What it is called. Products have other names than all others of their category, up to 700 of one.
        available: Whether it can be bought, by the shop's feed; its people do not ask.
    """

    product_id: str
    category: str
    brand: str
    price: msgspec.Raw
    cents: int
    name: str
    available: bool


@dataclass(frozen=True, slots=True)
class Shopper:
    """A user: what they like, how likely a filled cart is paid, and what they browse with.

    `favourites` are indexes of categories, the dearest first.
    """

    user_id: str
    favourites: tuple[int, ...]
    checkout_rate: float
    user_agent: str
    consent: bool


def plain_product(number: int) -> tuple[str, str]:
    """Return id and category of the product with this number, from 1."""
    return f"product_{number}", CATEGORIES[number % len(CATEGORIES)]


class Catalogue:
    """The shop's products `product_1` to `product_N`, with a popularity that falls off as Zipf's law."""

    def __init__(self, products: int) -> None:
        ranks = list(range(1, products + 1))
        Random("popularity").shuffle(ranks)
        weights = [rank**-_POPULARITY_EXPONENT for rank in ranks]
        self.products = [product(number) for number in range(1, products + 1)]
        self._weights = list(accumulate(weights))
        self._members = [
            [i for i, product in enumerate(self.products) if product.category == category]
            for category in CATEGORIES
        ]
        self._weights_within = [list(accumulate(weights[i] for i in members)) for members in self._members]
        self._stocked = [i for i, members in enumerate(self._members) if members]

    def any_product(self, random: Random) -> int:
        """Return the index of a product, by popularity."""
        return random.choices(range(len(self.products)), cum_weights=self._weights)[0]

    def product_of(self, category: int, random: Random) -> int:
        """Return the index of a product of this category, by popularity within it."""
        return random.choices(self._members[category], cum_weights=self._weights_within[category])[0]

    def shopper(self, number: int) -> Shopper:
        """Return the user with this number, from 1."""
        random = Random(f"shopper:{number}")
        favourites = random.sample(self._stocked, k=min(random.choice((1, 2, 2, 3)), len(self._stocked)))
        return Shopper(
            user_id=f"user_{number}",
            favourites=tuple(favourites),
            checkout_rate=random.betavariate(2.0, 2.7),
            user_agent=random.choices(_BROWSERS, _BROWSER_WEIGHTS)[0],
            consent=random.random() >= _REFUSES_CONSENT,
        )


def product(number: int) -> Product:
    """Return the product with this number, from 1."""
    random = Random(f"product:{number}")
    product_id, category = plain_product(number)
    (low, high), brands = _CATEGORIES[category]
    # Cubed, because a range has many cheap products and few dear ones.
    cents = 100 * int(low + (high - low) * random.random() ** 3) + random.choice((99, 90, 49, 0))
    brand = random.choice(brands)
    # Last, as all draws that come later: the others stay what they are.
    available = random.random() >= _SOLD_OUT
    return Product(
        product_id, category, brand, price_of(cents), cents, _name(number, category, brand, cents), available
    )


def _name(number: int, category: str, brand: str, cents: int) -> str:
    names = _NAMES[category]
    # The number among those of the category; a word has all its models before both come again.
    place = number // len(CATEGORIES) * _NAME_STEP
    model, word = divmod(place % (len(names.words) * len(names.models)), len(names.words))
    kind = next(kind for below, kind in names.kinds if cents < 100 * below)
    return f"{brand} {names.words[word]} {names.models[model]} {kind}"


def price_of(cents: int) -> msgspec.Raw:
    """Return a price as JSON, with two decimals."""
    sign, cents = "-" if cents < 0 else "", abs(cents)
    return msgspec.Raw(f"{sign}{cents // 100}.{cents % 100:02}".encode())


def write_rates(path: Path) -> None:
    """Write the file of `RATES` that EXCHANGE_RATES can name."""
    lines = (f"{date(2000, 1, 1)},{currency},{rate}" for currency, rate in RATES.items())
    path.write_text("\n".join(["date,currency,rate", *lines]) + "\n")


def cents_in(currency: str, cents: int) -> int:
    """Return a price of the shop's in another currency, in hundredths of it."""
    return cents if currency == CURRENCY else round(cents / RATES[currency])
