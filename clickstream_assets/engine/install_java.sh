#!/bin/sh
# Makes sure that a Java 17 to 23 is there: the servers of the local stack and Spark run on it.
# Does nothing if one is; installs Debian's as root; otherwise says what to install and exits with 1. A newer one does
# for the servers, but not for Spark 4.0 (java.py says why), so where that is all there is, it says so and goes on.
# Arguments: where to look beside JAVA_HOME and PATH (default: the usual places).
set -eu

oldest=17
newest_of_spark=23
too_new=
[ $# -gt 0 ] || set -- /usr/lib/jvm/*/bin/java /opt/homebrew/opt/*/bin/java /usr/local/opt/*/bin/java /opt/java/*/bin/java

is_suited() {
    # `java -version` says: openjdk version "17.0.15" 2025-04-15 (Java 8 calls itself 1.8).
    version=$("$1" -version 2>&1 | sed -n 's/.* version "\([0-9][0-9]*\).*/\1/p' | head -n 1)
    if [ "${version:-0}" -gt "$newest_of_spark" ]; then
        too_new=$1
        return 1
    fi
    [ "${version:-0}" -ge "$oldest" ]
}

has_java() {
    for java in "${JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)" "$@"; do
        if [ -x "$java" ] && is_suited "$java"; then
            return 0
        fi
    done
    if [ -x /usr/libexec/java_home ] && home=$(/usr/libexec/java_home -v "$oldest+" 2>/dev/null); then
        is_suited "$home/bin/java"
        return
    fi
    return 1
}

if has_java "$@"; then
    exit 0
fi

install_package="$(dirname "$0")/install_package.sh"
for package in "openjdk-$oldest-jre-headless" default-jre-headless; do
    if sh "$install_package" Java "$package" && has_java "$@"; then
        exit 0
    fi
done

if [ -n "$too_new" ]; then
    echo "$too_new is newer than Java $newest_of_spark: the servers run on it, Spark 4.0 does not. For Spark install" \
        "Java $oldest (Debian and Ubuntu: apt-get install openjdk-$oldest-jre-headless; macOS: brew install" \
        "openjdk@$oldest)." >&2
    exit 0
fi

echo "Java $oldest or newer is needed: install it (Debian and Ubuntu: apt-get install openjdk-$oldest-jre-headless;" \
    "macOS: brew install openjdk@$oldest) or set JAVA_HOME, then repeat." >&2
exit 1
