#!/bin/sh
# Makes sure that Podman is there, which builds and runs the image for `make image`, and debootstrap, which makes what it
# is built on. Does nothing if they are; installs Debian's as root; otherwise says what to install and exits with 1.
set -eu

# catatonit is the containers' init; netavark and aardvark-dns are their network and its names.
packages="podman crun catatonit netavark aardvark-dns iptables iproute2 debootstrap"

has_all() {
    # shellcheck disable=SC2086
    [ -z "$(dpkg-query --show --showformat '${db:Status-Status}\n' $packages 2>&1 | grep -v '^installed$')" ]
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "make image needs Debian 12 or newer: it makes what the image is built on from Debian's packages." >&2
    exit 1
fi
if has_all; then
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    echo "Installing $packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2 || true
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $packages >&2 || true
    if has_all; then
        exit 0
    fi
fi

echo "Podman and debootstrap are needed: apt-get install --no-install-recommends $packages, then repeat." >&2
exit 1
