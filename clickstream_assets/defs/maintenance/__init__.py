"""Upkeep of the lake."""
