"""Habits of a simulated shop's people besides viewing, filling carts and buying, and of how the shop writes."""

from dataclasses import dataclass, fields

from clickstream_assets.errors import InputError


@dataclass(frozen=True)
class Habits:
    """Shares from 0 to 1; without any, all events are of version 1 of the contract and have a user id.

    Attributes:
        anonymous: Of the shoppers, who have an anonymous id for each of their devices.
        late_login: Of those, who log in in the middle of a visit, their first or one some days later.
        never_login: Of those, who never log in. The others, neither late nor never, are logged in as a visit begins.
        second_device: Of those with an anonymous id, who have two devices.
        shared_device: Of those with an anonymous id, who have one device with somebody else, one after the other.
        guest_checkout: Of the orders of visitors without a name, those bought as a guest. For the others they log in,
            and who never does leaves the cart.
        identify: Of the logins, those that an `identify` event announces.
        refunds: Of the products in orders, those that are sent back days later: all units or some, or a part of the
            price; as a `refund`, or as a purchase of a negative price or quantity.
        page_views: Of the visits, those that begin on a page without a product; some see no other.
        impressions: Of the looks at a product, those after it was shown in a list.
        wishlists: Of the looks, those that end on the wish list.
        searches: Of the looks, those after a search.
        checkouts: Of the orders, those that begin with `begin_checkout`.
        custom: Of the visits, those with an event of the shop's own.
        items: Of the lists, checkouts and orders of several products, those that are one record with `items`.
        unit_rows: Of the orders, those with a row for each unit: equal rows, or rows that `order_line` tells apart.
        foreign_currency: Of the orders, those in another currency.
        local_times: Of the visits, those whose times are by the shop's clock, with or without an offset.
    """

    anonymous: float = 0.0
    late_login: float = 0.0
    never_login: float = 0.0
    second_device: float = 0.0
    shared_device: float = 0.0
    guest_checkout: float = 0.0
    identify: float = 0.0
    refunds: float = 0.0
    page_views: float = 0.0
    impressions: float = 0.0
    wishlists: float = 0.0
    searches: float = 0.03
    checkouts: float = 0.0
    custom: float = 0.0
    items: float = 0.0
    unit_rows: float = 0.0
    foreign_currency: float = 0.0
    local_times: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares that cannot be."""
        for field in fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise InputError(f"{field.name}={share}: a share must be between 0 and 1")
        if self.late_login + self.never_login > 1 + 1e-9:
            raise InputError(
                f"late_login={self.late_login} and never_login={self.never_login} add up to more than 1; "
                "a shopper does one of them at most, so lower one"
            )


USUAL = Habits(
    anonymous=0.6,
    late_login=0.4,
    never_login=0.25,
    second_device=0.2,
    shared_device=0.04,
    guest_checkout=0.3,
    identify=0.7,
    refunds=0.06,
    page_views=0.4,
    impressions=0.05,
    wishlists=0.03,
    searches=0.05,
    checkouts=0.8,
    custom=0.03,
    items=0.5,
    unit_rows=0.1,
)
"""A usual shop's. It writes UTC and has one currency: others need settings of whoever reads its events."""
