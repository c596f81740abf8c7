#!/usr/bin/env bash
# Makes a base image for the Dockerfile from Debian's packages alone, where no image registry can be
# reached (CI): `scripts/base_image.sh [name:tag]`, then `make image BASE_IMAGE=localhost/name:tag`.
# Needs root, debootstrap and buildah. The packages are fetched once and kept in the user's cache.
set -euo pipefail

suite=bookworm # its Python is 3.11
image="${1:-forge-job-base:$suite}"
archive="${XDG_CACHE_HOME:-$HOME/.cache}/forge-job/debian-$suite.tar"

if buildah inspect --type image "$image" >/dev/null 2>&1; then
  exit 0
fi
if [ ! -e "$archive" ]; then
  root="$(mktemp -d)"
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$suite" "$root" >&2
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  mkdir -p "$(dirname "$archive")"
  tar --create --file "$archive.unfinished" --directory "$root" --numeric-owner .
  mv "$archive.unfinished" "$archive"
fi

container="$(buildah from scratch)"
buildah add --quiet "$container" "$archive" / >/dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  --cmd /bin/bash "$container"
buildah commit --quiet --rm "$container" "$image" >/dev/null
