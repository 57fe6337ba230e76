"""Events into Kafka: a generated shop, and readers of public data sets.

`catalogue`, `shoppers`, `plain`, `malformed` and `stream` make records and do no I/O; `readers` turns files
into records; `sinks` writes records; `run` joins them, and `cli` is `clickstream simulate` and `replay`.
"""
