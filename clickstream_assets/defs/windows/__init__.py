"""The group of windows, alerts and live events."""
