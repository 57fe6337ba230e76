"""Where data live: the lake, Kafka, PostgreSQL, Elasticsearch."""
