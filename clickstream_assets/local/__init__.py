"""The one-machine stack: a real Kafka, PostgreSQL and Elasticsearch as child processes, without Docker.

`stack.py` starts, stops and watches the three; `kafka.py`, `postgres.py` and `elasticsearch.py` say how each
is set up and asked for its health; `jars.py` fetches the pinned servers and `java.py` finds their Java.
Production uses none of this: it names its own servers in the settings.
"""
