#!/bin/sh
# Puts the programs of Prometheus and Alertmanager, with which the alerts are tested, into a folder. From Debian's
# packages, unpacked and not installed: no service starts, and nobody has to be root, but for the text of Alertmanager's
# messages: Debian's reads it from a folder of the system alone. Does nothing where they are there.
# Argument: the folder.
set -eu

folder=$1
programs="usr/bin/prometheus usr/bin/promtool usr/bin/prometheus-alertmanager usr/bin/amtool"
texts=usr/share/prometheus/alertmanager

are_there() {
    for program in $programs; do
        [ -x "$folder/${program##*/}" ] || command -v "${program##*/}" >/dev/null 2>&1 || return 1
    done
    [ -e "/$texts/default.tmpl" ] || [ "$(id -u)" != 0 ]
}

if are_there; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "There is no apt-get to fetch Prometheus with, and the tests of the alerts are skipped" >&2
    exit 0
fi
echo "Fetching Prometheus and Alertmanager (30 MB) for the tests of the alerts" >&2
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
if (
    cd "$unpacked"
    apt-get download -q prometheus prometheus-alertmanager >&2
    for package in *.deb; do dpkg-deb --extract "$package" .; done
    for program in $programs; do cp "$program" "$folder/"; done
    if [ "$(id -u)" = 0 ]; then mkdir -p "/$texts" && cp -r "$texts/." "/$texts/"; fi
); then
    exit 0
fi
echo "PROMETHEUS WAS NOT FETCHED (apt-get says why, above): the tests of the alerts are skipped" >&2
