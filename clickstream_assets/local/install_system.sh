#!/bin/sh
# Makes sure that what pip does not bring is there:
# - a Java 17 or newer, which the servers of the local stack and Spark run on;
# - GCC's OpenMP library, which implicit's wheel for Linux needs and does not hold.
# Does nothing where they are; installs Debian's as root; otherwise says what to install and exits with 1.
#
#     sh install_system.sh [PYTHON]      PYTHON: the one that will load the library; default python3
set -eu

oldest=17
python=${1:-python3}

is_new_enough() {
    # `java -version` says: openjdk version "17.0.15" 2025-04-15 (Java 8 calls itself 1.8).
    version=$("$1" -version 2>&1 | sed -n 's/.* version "\([0-9][0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge "$oldest" ]
}

has_java() {
    for java in "${JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)" \
        /usr/lib/jvm/*/bin/java /opt/homebrew/opt/*/bin/java /usr/local/opt/*/bin/java /opt/java/*/bin/java; do
        if [ -x "$java" ] && is_new_enough "$java"; then
            return 0
        fi
    done
    if [ -x /usr/libexec/java_home ] && /usr/libexec/java_home -v "$oldest+" >/dev/null 2>&1; then
        return 0
    fi
    return 1
}

has_openmp() {
    # Asked of the loader itself, which knows LD_LIBRARY_PATH and every distribution's folders.
    [ "$(uname -s)" != Linux ] || "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null
}

install() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing $1" >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$1" >&2
    else
        return 1
    fi
}

if has_java && has_openmp; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q >&2 || true
fi
if ! has_java; then
    install "openjdk-$oldest-jre-headless" || install default-jre-headless || true
fi
if ! has_openmp; then
    install libgomp1 || true
fi

status=0
if ! has_java; then
    echo "Java $oldest or newer is needed: install it (Debian and Ubuntu: apt-get install openjdk-$oldest-jre-headless;" \
        "macOS: brew install openjdk@$oldest) or set JAVA_HOME, then repeat." >&2
    status=1
fi
if ! has_openmp; then
    echo "libgomp.so.1 is needed, GCC's OpenMP library: install it (Debian and Ubuntu: apt-get install libgomp1;" \
        "Fedora: dnf install libgomp), then repeat." >&2
    status=1
fi
exit $status
