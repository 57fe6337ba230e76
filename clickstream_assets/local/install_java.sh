#!/bin/sh
# Makes sure that a Java 17 or newer is there: the servers of the local stack and Spark run on it.
# Does nothing if one is; installs Debian's as root; otherwise says what to install and exits with 1.
set -eu

oldest=17

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

if has_java; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Java (openjdk-$oldest-jre-headless)" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2 || true
    apt-get install -q -y --no-install-recommends "openjdk-$oldest-jre-headless" >&2 ||
        apt-get install -q -y --no-install-recommends default-jre-headless >&2 || true
    if has_java; then
        exit 0
    fi
fi

echo "Java $oldest or newer is needed: install it (Debian and Ubuntu: apt-get install openjdk-$oldest-jre-headless;" \
    "macOS: brew install openjdk@$oldest) or set JAVA_HOME, then repeat." >&2
exit 1
