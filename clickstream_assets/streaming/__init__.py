"""The speed layer: Structured Streaming from Kafka, in a run of Dagster's or always on.

From the topic (`source`) to windows (`windows`), alerts (`alerts`) and what PostgreSQL and the lake keep of them
(`store`, `lake_copies`); one process at a time (`owner`), which goes on where the last one ended (`checkpoint`).
"""
