#!/usr/bin/env bash
# Runs checkov over k8s/ and the chart's examples. It pins old versions of what the job depends on,
# so it lives in an environment of its own. .checkov.yaml names what is left out, and why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=3.3.30
home=.venv/checkov
if [ ! -e "$home/.$version" ]; then
  .venv/bin/python -m venv --clear "$home"
  "$home/bin/pip" install --disable-pip-version-check --quiet "checkov==$version"
  touch "$home/.$version"
fi
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for manifest in k8s/{plain,argo,kueue,distributed}/*.yaml; do
  folder=$(basename "$(dirname "$manifest")") # two folders may have a file of one name
  cp "$manifest" "$rendered/$folder-$(basename "$manifest")"
done
for values in helm/examples/*.yaml; do
  .venv/bin/helm template run helm --namespace ml --values "$values" \
    --set networkPolicy.enabled=true > "$rendered/chart-$(basename "$values")"
done
"$home/bin/checkov" --config-file .checkov.yaml --directory "$rendered" --skip-download
