#!/bin/sh
# Makes sure that GCC's OpenMP library is there, which implicit's wheel for Linux needs and does not hold.
# Does nothing if it is; installs Debian's as root; otherwise says what to install and exits with 1.
# Argument: the Python that will load it (default: python3).
set -eu

python=${1:-python3}

has_openmp() {
    # Asked of the loader itself, which knows LD_LIBRARY_PATH and every distribution's folders.
    [ "$(uname -s)" != Linux ] || "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null
}

if has_openmp; then
    exit 0
fi

if sh "$(dirname "$0")/install_package.sh" OpenMP libgomp1 && has_openmp; then
    exit 0
fi

echo "libgomp.so.1 is needed, GCC's OpenMP library: install it (Debian and Ubuntu: apt-get install libgomp1;" \
    "Fedora: dnf install libgomp), then repeat." >&2
exit 1
