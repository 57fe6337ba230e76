"""The simulated shop's own pages: a picture of each product, drawn by its category and brand, and a page of it."""

from colorsys import hls_to_rgb
from html import escape
from string import Template

from clickstream_assets.simulator.catalogue import BRANDS, CURRENCY, Product
from clickstream_assets.simulator.feed import picture_path

# On a ground of 240 by 240. $light and $dark are the shades of the brand, $pale is nearly white.
_SHAPES = {
    "smartphones": """
<rect x="80" y="34" width="80" height="152" rx="14" fill="$pale"/>
<rect x="87" y="44" width="66" height="132" rx="7" fill="$dark"/>
<rect x="108" y="49" width="24" height="6" rx="3" fill="$pale"/>
<path d="M87 150l22-26 18 16 26-34v63a7 7 0 0 1-7 7H94a7 7 0 0 1-7-7z" fill="$light"/>""",
    "laptops": """
<rect x="52" y="54" width="136" height="96" rx="9" fill="$pale"/>
<rect x="60" y="62" width="120" height="80" rx="4" fill="$dark"/>
<path d="M60 128l34-32 28 20 24-26 34 30v22H60z" fill="$light"/>
<path d="M34 156h172l-8 16a6 6 0 0 1-5 3H47a6 6 0 0 1-5-3z" fill="$pale"/>
<path d="M104 156h32l-3 6h-26z" fill="$dark"/>""",
    "tablets": """
<rect x="62" y="36" width="116" height="150" rx="12" fill="$pale"/>
<rect x="72" y="46" width="96" height="130" rx="4" fill="$dark"/>
<circle cx="142" cy="76" r="13" fill="$pale"/>
<path d="M72 150l34-40 24 22 16-14 22 24v30a4 4 0 0 1-4 4H76a4 4 0 0 1-4-4z" fill="$light"/>""",
    "headphones": """
<path d="M62 138v-22a58 58 0 0 1 116 0v22" fill="none" stroke="$pale" stroke-width="13" stroke-linecap="round"/>
<rect x="48" y="116" width="36" height="62" rx="16" fill="$pale"/>
<rect x="156" y="116" width="36" height="62" rx="16" fill="$pale"/>
<rect x="76" y="124" width="12" height="46" rx="6" fill="$dark"/>
<rect x="152" y="124" width="12" height="46" rx="6" fill="$dark"/>""",
    "smartwatches": """
<path d="M96 66l6-36h36l6 36zM96 156l6 36h36l6-36z" fill="$pale" opacity="0.55"/>
<rect x="74" y="60" width="92" height="102" rx="26" fill="$pale"/>
<rect x="83" y="69" width="74" height="84" rx="19" fill="$dark"/>
<path d="M120 84v28l18 12" fill="none" stroke="$pale" stroke-width="7" stroke-linecap="round" \
stroke-linejoin="round"/>
<rect x="166" y="100" width="7" height="22" rx="3" fill="$pale"/>""",
    "cameras": """
<path d="M88 72l9-18a8 8 0 0 1 7-4h32a8 8 0 0 1 7 4l9 18z" fill="$pale"/>
<rect x="40" y="68" width="160" height="108" rx="16" fill="$pale"/>
<circle cx="120" cy="122" r="41" fill="$dark"/>
<circle cx="120" cy="122" r="28" fill="$light"/>
<circle cx="120" cy="122" r="15" fill="$dark"/>
<circle cx="109" cy="111" r="6" fill="$pale"/>
<rect x="170" y="80" width="19" height="11" rx="3" fill="$dark"/>""",
    "gaming": """
<path d="M84 74h72c30 0 46 44 46 76 0 26-26 28-38 8l-8-14H84l-8 14c-12 20-38 18-38-8 0-32 16-76 46-76z" \
fill="$pale"/>
<path d="M80 92h12v12h12v12H92v12H80v-12H68v-12h12z" fill="$dark"/>
<circle cx="150" cy="98" r="8" fill="$dark"/><circle cx="166" cy="112" r="8" fill="$light"/>
<circle cx="134" cy="112" r="8" fill="$light"/><circle cx="150" cy="126" r="8" fill="$dark"/>""",
    "accessories": """
<path d="M120 148c0 44-62 40-62 4 0-24 26-22 40-18" fill="none" stroke="$pale" stroke-width="10" \
stroke-linecap="round"/>
<path d="M102 66V38M138 66V38" stroke="$pale" stroke-width="12" stroke-linecap="round"/>
<path d="M80 64h80v40a40 40 0 0 1-80 0z" fill="$pale"/>
<path d="M126 76l-20 28h13l-5 24 21-30h-13z" fill="$dark"/>""",
}
_PICTURE = Template(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 240" role="img" aria-labelledby="name">'
    '<title id="name">$name</title>'
    '<defs><linearGradient id="ground" x2="1" y2="1"><stop stop-color="$light"/><stop offset="1" stop-color="$dark"/>'
    '</linearGradient></defs><rect width="240" height="240" rx="28" fill="url(#ground)"/>$shape\n'
    '<text x="120" y="218" text-anchor="middle" font-family="system-ui, sans-serif" font-size="17" font-weight="600" '
    'letter-spacing="1" fill="$pale">$brand</text></svg>\n'
)
_PAGE = Template(
    """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$name</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 40rem; margin: 0 auto; padding: 1.5rem; }
main { display: flex; flex-wrap: wrap; gap: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 0.5rem; }
p { margin: 0 0 0.25rem; }
</style>
</head>
<body>
<main>
<img src="$picture" alt="" width="240" height="240">
<div>
<h1>$name</h1>
<p><strong>$price $currency</strong></p>
<p>$brand, $category</p>
<p>$available</p>
</div>
</main>
</body>
</html>
"""
)
_PALE = "#f4f7fb"


def picture(product: Product) -> str:
    """Return a picture of a product, an SVG of 240 by 240: what its category is, in its brand's colour.

    The ground is dark enough for the shape on it, and stands out from a white page and from a dark one.
    """
    hue = BRANDS.index(product.brand) / len(BRANDS)
    colours = {"light": _colour(hue, 0.5), "dark": _colour(hue, 0.28), "pale": _PALE}
    return _PICTURE.substitute(
        colours,
        shape=Template(_SHAPES[product.category]).substitute(colours),
        name=escape(product.name),
        brand=escape(product.brand),
    )


def page(product: Product) -> str:
    """Return the shop's page of a product, in HTML."""
    return _PAGE.substitute(
        name=escape(product.name),
        brand=escape(product.brand),
        category=product.category,
        picture=picture_path(product.product_id),
        price=bytes(product.price).decode(),
        currency=CURRENCY,
        available="In stock" if product.available else "Sold out",
    )


def _colour(hue: float, lightness: float) -> str:
    red, green, blue = (round(255 * part) for part in hls_to_rgb(hue, lightness, 0.5))
    return f"#{red:02x}{green:02x}{blue:02x}"
