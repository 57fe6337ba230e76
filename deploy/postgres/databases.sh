#!/bin/sh
# Run by the PostgreSQL image when it has made an empty server: the role that owns the pipeline's tables, and a database
# for these and one for Dagster's. The owner is no superuser; it may make roles, as `clickstream prepare` makes those of
# the API, the pipeline and Dagster, and databases, without which it could give Dagster none.
set -eu
DATABASE_PASSWORD=$(cat "$DATABASE_PASSWORD_FILE")
export DATABASE_PASSWORD
psql --username="$POSTGRES_USER" --dbname=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\getenv password DATABASE_PASSWORD
create role clickstream login createrole createdb password :'password';
create database clickstream owner clickstream;
create database dagster owner clickstream;
SQL
