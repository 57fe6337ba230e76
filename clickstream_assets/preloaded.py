"""The definitions, loaded when this is imported: what runs are forked from imports it (`defs/dagster_private.py`)."""

from clickstream_assets.definitions import load

load()
