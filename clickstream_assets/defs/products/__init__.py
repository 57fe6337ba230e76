"""Products: what the shop sells, by its events and its feed."""
