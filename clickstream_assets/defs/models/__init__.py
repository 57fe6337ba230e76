"""The group of the recommendation models."""
