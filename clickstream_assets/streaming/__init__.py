"""The speed layer: Structured Streaming from Kafka, in a run of Dagster's or always on.

From the topic (`source`) to windows (`windows`), alerts (`alerts`) and what PostgreSQL and the lake keep of them
(`store`, `lake_copies`), which a query joins (`query`); to who is told of them (`outbox`). One process at a time runs
the queries (`process`, `owner`), and goes on where the last one ended (`checkpoint`).
"""
