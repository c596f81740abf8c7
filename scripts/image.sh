#!/usr/bin/env bash
# Builds the container image with docker, podman or buildah, whichever works here (`make image`).
#
#   TARGET=gpu|cpu         which dependencies; gpu by default
#   IMAGE=name:tag         forge-job:<version>, and forge-job:<version>-cpu, by default
#   BASE_IMAGE=image       another base than the Dockerfile's (scripts/base_image.sh makes one)
#   TORCH_INDEX_URL=url    gpu: PyTorch's index for another CUDA; cpu: its index of CPU builds
#   SOURCE=url             where the code is to be found, for the image's label
#   BUILDER=buildah        this one, of the three
#   CONTEXT=folder         the code; by default that of this script
#
# pip in the build reaches what pip reaches here: its index, certificates and local wheels are
# handed over for the build alone, and nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python="${PYTHON:-python3}"
context="${CONTEXT:-.}"
target="${TARGET:-gpu}"
version="$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$context/job/version.py")"
suffix=""
[ "$target" = gpu ] || suffix="-$target"
image="${IMAGE:-forge-job:$version$suffix}"

# A command that is there need not work: a client without its daemon is of no use.
works() {
  command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

builder="${BUILDER:-}"
for candidate in docker podman buildah; do
  if [ -z "$builder" ] && works "$candidate"; then
    builder="$candidate"
  fi
done
if [ -z "$builder" ]; then
  echo "neither docker nor podman nor buildah works here: install one of them" >&2
  exit 1
fi

settings="$(mktemp -d)"
trap 'rm -rf "$settings"' EXIT
"$python" scripts/pip_settings.py "$settings"

revision="$(git -C "$context" rev-parse HEAD 2>/dev/null || true)"
if [ -n "$(git -C "$context" status --porcelain 2>/dev/null)" ]; then
  revision="$revision-dirty"
fi
options=(
  --target "$target"
  --tag "$image"
  --file "$context/Dockerfile"
  --secret "id=pip,src=$settings/pip.conf"
  --build-context "wheels=$settings/wheels"
  --build-arg "VERSION=$version"
  --build-arg "REVISION=$revision"
  --build-arg "CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
)
if [ -e "$settings/ca" ]; then
  options+=(--secret "id=ca,src=$settings/ca")
fi
for name in BASE_IMAGE TORCH_INDEX_URL SOURCE; do
  if [ -n "${!name:-}" ]; then
    if [[ ${!name} == *://*@* ]]; then
      echo "$name holds credentials, which would stay in the image's history: give it without, and" \
        "an index with them to pip (extra-index-url), which the build gets as a secret" >&2
      exit 1
    fi
    options+=(--build-arg "$name=${!name}")
  fi
done

case "$builder" in
  docker) export DOCKER_BUILDKIT=1 ;;
  # It needs neither a container runtime nor privileges that a CI machine rarely has.
  buildah) export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}" && options+=(--layers) ;;
esac
"$builder" build "${options[@]}" "$context"
echo "built $image with $builder"
