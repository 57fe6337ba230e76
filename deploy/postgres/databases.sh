#!/bin/sh
# Run by the PostgreSQL image when it has made an empty server: the role that owns the pipeline's tables and Dagster's,
# which is no superuser, and a database for each.
set -eu
DATABASE_PASSWORD=$(cat "$DATABASE_PASSWORD_FILE")
export DATABASE_PASSWORD
psql --username="$POSTGRES_USER" --dbname=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\getenv password DATABASE_PASSWORD
create role clickstream login password :'password';
create database clickstream owner clickstream;
create database dagster owner clickstream;
SQL
