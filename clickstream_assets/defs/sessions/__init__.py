"""The group of sessions and carts."""
