# The one image of the project: every process of ours, and Spark's master, workers and executors, so that all of them
# have the same Python, the same packages and the same jars. Nothing is fetched when a container starts.
#
#     docker build --tag clickstream-assets:0.1.0 .

FROM python:3.13.16-slim-trixie AS system
# Java for Spark, and for Ivy, which fetches Spark's jars; OpenMP for implicit, whose wheel does not hold it. Not pinned
# closer: Debian keeps a release's newest only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 openjdk-21-jre-headless \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH \
    JARS_PATH=/opt/jars

FROM system AS build
RUN python -m venv /opt/venv
WORKDIR /build
# Every file by its hash (`make requirements`), the tools included that build what comes without a wheel; pip would fetch
# the newest of these by itself. A tool that a package needs too is installed once more: the tools stay behind.
COPY deploy/image/tools.txt deploy/image/requirements.txt ./
RUN pip install --no-cache-dir --require-hashes --target /opt/tools --requirement tools.txt \
    && PYTHONPATH=/opt/tools pip install --no-cache-dir --require-hashes --no-build-isolation --ignore-installed \
        --requirement requirements.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY clickstream_assets clickstream_assets
RUN PYTHONPATH=/opt/tools PATH=/opt/tools/bin:$PATH pip install --no-cache-dir --no-deps --no-build-isolation . \
    && clickstream fetch-jars --only spark
# What is installed and no process of ours reads: the packages' own tests, maps and headers for who develops with them,
# parts that are imported by nobody here, and pip.
WORKDIR /opt/venv/lib/python3.13/site-packages
RUN pip uninstall --yes setuptools pip \
    && find . -type d -name tests -prune -exec rm -r {} + \
    && find dagster_webserver -name '*.map' -delete \
    && rm -r kubernetes/aio pyarrow/include pyarrow/*flight* pyspark/examples
# What is missing, a library of the system or one of these files, is first looked for when it is imported.
RUN python -c 'import implicit.als, implicit.nearest_neighbours; from clickstream_assets.definitions import defs; defs()'

FROM system
RUN groupadd --gid 10001 clickstream \
    && useradd --uid 10001 --gid clickstream --create-home clickstream \
    && install --directory --owner=clickstream --group=clickstream \
        /backups /opt/dagster /opt/dagster/storage /var/lib/clickstream /var/lib/spark
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/jars /opt/jars
COPY dagster.yaml /opt/dagster/
COPY deploy/workspace.yaml /opt/clickstream/
COPY deploy/check-health /usr/local/bin/
ENV DAGSTER_HOME=/opt/dagster \
    CLICKSTREAM_HOME=/var/lib/clickstream \
    PYTHONUNBUFFERED=1
# The user by number, as Kubernetes can only tell of a number that it is not root's.
USER 10001:10001
WORKDIR /opt/clickstream
CMD ["clickstream", "--help"]
