#!/bin/sh
# Installs Chromium, in which the pages are tested, from Debian's packages as root. Does nothing where it is there.
set -eu

if command -v chromium >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    echo "Chromium is not there and cannot be installed (not root, or no apt-get): the pages are not tried in a browser" >&2
    exit 0
fi
echo "Installing Chromium (100 MB), in which the pages are tested" >&2
apt-get update --quiet=2
DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium >/dev/null
