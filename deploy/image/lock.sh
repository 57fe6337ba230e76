#!/bin/sh
# Writes what the image installs, with the hashes of all its files: requirements.txt, and tools.txt of what builds some of
# it. Names, versions and hashes alone; where packages come from is whoever builds it to say. `make requirements` runs it
# after a change of pyproject.toml or constraints.txt.
# Argument: uv.
set -eu
uv=$1
cd "$(dirname "$0")/../.."
python=$(sed -n 's/^FROM python:\([0-9]*\.[0-9]*\)\..*/\1/p' Dockerfile)
other=$(mktemp)
trap 'rm -f "$other"' EXIT

lock() {
    machine=$1
    output=$2
    shift 2
    "$uv" pip compile --quiet --python-platform "$machine-unknown-linux-gnu" --python-version "$python" \
        --constraint constraints.txt --generate-hashes --no-annotate --no-header --no-emit-index-url \
        --output-file "$output" "$@"
}

for name in tools requirements; do
    if [ $name = tools ]; then wanted=deploy/image/tools.in; else wanted="--extra kubernetes pyproject.toml"; fi
    # Options and a file, as words.
    # shellcheck disable=SC2086
    lock x86_64 "deploy/image/$name.txt" $wanted
    cp "deploy/image/$name.txt" "$other"
    # shellcheck disable=SC2086
    lock aarch64 "$other" $wanted
    # One file is for both kinds of machines.
    diff "deploy/image/$name.txt" "$other"
done
