#!/bin/sh
# Runs Caddy with the Caddyfile beside this, which gets the password of WEBSERVER_PASSWORD_FILE hashed. What is in an
# environment is seen by more than files are.
set -eu
if [ "${WEBSERVER_LOGIN:-basic}" = basic ]; then
    if [ ! -s "${WEBSERVER_PASSWORD_FILE:-}" ]; then
        echo "WEBSERVER_PASSWORD_FILE=${WEBSERVER_PASSWORD_FILE:-} has no password; Dagster's pages ask for one." >&2
        exit 1
    fi
    # The password is random and long, so a hash need not take a second of each first request.
    WEBSERVER_PASSWORD_HASH=$(caddy hash-password --bcrypt-cost 10 <"$WEBSERVER_PASSWORD_FILE")
    export WEBSERVER_PASSWORD_HASH
fi
exec caddy run --config "$(dirname "$0")/Caddyfile"
