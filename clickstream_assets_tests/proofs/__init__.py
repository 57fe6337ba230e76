"""Proofs: every daily table of a data set equals what plain SQL says of the file that the data came in.

A data set goes the whole way: through the readers into Kafka, the jobs `ingest` and `refresh`, the lake and
PostgreSQL. Meanwhile `recomputation.py` runs the scripts of `sql/` in a DuckDB of its own, on a table `raw` of the very
file. They share no code with `clickstream_assets.analytics`, whose constants (30 minutes, 24 hours, 365 days, the names
of segments) are written out again. `benchmarks.day` runs the same scripts to compare their cost with the pipeline's.

- `test_online_retail.py`: ten months of a shop's orders, backfilled in one run;
- `test_rees46.py`: three hours of a large shop's clicks;
- `test_month.py`: a simulated month: in one run, day by day, and late, repeated and shuffled.

The first two need the files of `../shared/data`, next to the repository, and are skipped without them.

Others are of what goes wrong: who is notified of it (`test_alerting.py`), and stores put back to an earlier time
(`test_put_back.py`). Faults under load are in `faults/`.
"""
