#!/bin/sh
# Makes the passwords that docker-compose.yml asks for, once, and appends them to .env (or to the file that is named).
# Their names are not those of the settings, so that the servers of `clickstream stack up`, whose passwords are in the
# same file, keep their own.
set -eu
file=${1:-$(cd "$(dirname "$0")/.." && pwd)/.env}

if grep -qs '^DATABASE_PASSWORD=' "$file"; then
    echo "$file has the passwords already, and the volumes were made with them; nothing was changed." >&2
    echo "For new ones: docker compose --profile demo down --volumes, then remove the lines DATABASE_… and run this again." >&2
    exit 1
fi

password() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
touch "$file"
chmod 600 "$file"
# A last line without its end would swallow the first of ours.
if [ -n "$(tail -c 1 "$file")" ]; then echo >> "$file"; fi
cat >> "$file" <<END
DATABASE_ADMIN_PASSWORD=$(password)
DATABASE_PASSWORD=$(password)
END
echo "The passwords are in $file."
