#!/bin/sh
# Writes after the tag of each image that is pulled what its registry has under it now: name:tag@sha256:…, in the
# Dockerfile, docker-compose.yml and the chart's values. A tag may be moved to another image, a digest cannot. With
# `--check` it changes nothing, and fails where a digest is missing or the tag has moved on, which it then names.
# Needs Docker with buildx, and the registries.
set -eu
cd "$(dirname "$0")/../.."
files="Dockerfile docker-compose.yml helm/values.yaml"
check=${1:-}
failed=

# Ours is built and not pulled; stages of the Dockerfile have no tag.
images=$(sed -n -E 's/^(FROM|[[:space:]]*image:) ([a-z0-9./-]+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?)( .*)?$/\2/p' $files |
    grep -v '^clickstream-assets:' | sort -u)
for image in $images; do
    tag=${image%@*}
    digest=$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')
    case $digest in
        sha256:*) ;;
        *)
            echo "$tag: the registry names no digest: $digest" >&2
            exit 1
            ;;
    esac
    if [ "$image" = "$tag@$digest" ]; then continue; fi
    if [ "$check" = --check ]; then
        echo "$image is $tag@$digest now" >&2
        failed=1
        continue
    fi
    for file in $files; do
        sed -i -E "s|(FROM\|image:) $tag(@sha256:[0-9a-f]{64})?( .*)?\$|\1 $tag@$digest\3|" "$file"
    done
    echo "$tag@$digest"
done
[ -z "$failed" ]
