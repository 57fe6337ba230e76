#!/bin/sh
# install_package.sh TITLE PACKAGE: installs a package of Debian's as root, and shows apt's own progress.
# Exits with 1 where it cannot.
set -eu

title=$1
package=$2

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    exit 1
fi
echo "Installing $title ($package); apt says how much it fetches" >&2
export DEBIAN_FRONTEND=noninteractive
# On a terminal apt shows how far it is; elsewhere a line on each package.
quiet=-q
[ ! -t 2 ] || quiet=
# shellcheck disable=SC2086  # nothing, or one option
apt-get update $quiet >&2 || true
# shellcheck disable=SC2086
apt-get install $quiet -y --no-install-recommends "$package" >&2
