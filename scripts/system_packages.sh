#!/usr/bin/env bash
# Installs what the tests need of the system: a browser that looks at the HTML pages; Prometheus and its Pushgateway; Ceph, whose
# gateway is the second S3 store that the job is tested against; and what builds the container image
# without a daemon or a registry (the keyring: debootstrap on other systems lacks Debian's).
set -euo pipefail

missing=()
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null &&
  ! command -v google-chrome >/dev/null; then
  missing+=(chromium)
fi
for package in ceph-mon ceph-mgr ceph-osd radosgw; do
  command -v "$package" >/dev/null || missing+=("$package")
done
for program in ceph ceph-authtool radosgw-admin; do
  if ! command -v "$program" >/dev/null; then
    missing+=(ceph-common radosgw)
    break
  fi
done
command -v promtool >/dev/null || missing+=(prometheus) # also the server, which scrapes a run
command -v prometheus-pushgateway >/dev/null || missing+=(prometheus-pushgateway)
for package in buildah debootstrap; do
  command -v "$package" >/dev/null || missing+=("$package")
done
if [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
  missing+=(debian-archive-keyring)
fi
if [ "${#missing[@]}" -eq 0 ]; then
  exit 0
fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}; install with the system's package manager" \
    "(on Debian, as root: apt-get install --no-install-recommends ${missing[*]})" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
