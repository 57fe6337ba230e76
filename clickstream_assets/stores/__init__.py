"""Stores, where data live: the lake, Kafka, PostgreSQL, Elasticsearch."""
