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
if sh "$(dirname "$0")/install_package.sh" "Python's part for virtual environments" "$package" &&
    "$python" -m venv "$folder" >&2; then
    exit 0
fi

echo "$python -m venv $folder failed: on Debian and Ubuntu apt-get install $package, then repeat." >&2
exit 1
