"""Incidents: what is wrong with the pipeline, found by a sensor and told to people."""
