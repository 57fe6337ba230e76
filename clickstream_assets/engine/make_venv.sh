#!/bin/sh
# make_venv.sh PYTHON FOLDER: makes a virtual environment, unless one with pip is there.
# Where Python's own part for that is missing, installs Debian's as root; otherwise says what to install and exits with 1.
set -eu

python=$1
folder=$2

if [ -x "$folder/bin/pip" ] || "$python" -m venv "$folder" >&2; then
    exit 0
fi

# Debian has a package for each Python: python3.12-venv.
package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing $package" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2 || true
    apt-get install -q -y --no-install-recommends "$package" >&2 || true
    if "$python" -m venv "$folder" >&2; then
        exit 0
    fi
fi

echo "$python -m venv $folder failed: on Debian and Ubuntu apt-get install $package, then repeat." >&2
exit 1
