#!/bin/sh
# Makes the passwords that docker-compose.yml asks for and that are not there yet, and appends them to .env (or to the
# file that is named). Their names are not those of the settings, so that the servers of `clickstream stack up`, whose
# passwords are in the same file, keep their own.
set -eu
file=${1:-$(cd "$(dirname "$0")/.." && pwd)/.env}
names="DATABASE_ADMIN_PASSWORD DATABASE_PASSWORD DATABASE_API_PASSWORD DATABASE_PIPELINE_PASSWORD
    DATABASE_DAGSTER_PASSWORD CLUSTER_SECRET WEBSERVER_PASSWORD"

password() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

missing=
for name in $names; do
    grep -qs "^$name=" "$file" || missing="$missing $name"
done
if [ -z "$missing" ]; then
    echo "$file has the passwords already; nothing was changed." >&2
    echo "For a new one remove its line and run this again. Of DATABASE_ADMIN_PASSWORD and DATABASE_PASSWORD, with which" \
        "the volume of PostgreSQL was made: docker compose --profile demo down --volumes, which forgets all data." >&2
    exit 1
fi

umask 077
touch "$file"
chmod 600 "$file"
# A last line without its end would swallow the first of ours.
if [ -n "$(tail -c 1 "$file")" ]; then echo >> "$file"; fi
for name in $missing; do
    echo "$name=$(password)" >> "$file"
done
echo "The passwords are in $file. Dagster's pages ask for the user dagster and WEBSERVER_PASSWORD."
