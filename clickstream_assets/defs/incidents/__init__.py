"""Incidents: what is wrong with the pipeline, found by a sensor, of which people are notified."""
