"""Probabilities that a live session buys, and that a person does: features, models, and how good they are."""
