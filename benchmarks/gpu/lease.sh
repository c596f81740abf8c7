#!/usr/bin/env bash
# The suite on a machine that is lent by the minute: from the archive of benchmarks.gpu.pack to the
# table, most telling stages first, each within a limit; what there is comes back after each one.
#
#   benchmarks/gpu/lease.sh site.tgz OUT [SECONDS]
#
# Called again on the same machine it goes on with what is missing.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
archive=$1 out=$2 limit=${3:-400}

began=$SECONDS
say() { echo "== $((SECONDS - began)) s: $*"; }
at_most() { # SECONDS, or what is left
  local left=$((limit - (SECONDS - began)))
  ((left > 1)) || left=1
  echo $((left < $1 ? left : $1))
}

tar xzf "$archive" -C /tmp
export PYTHONPATH=/tmp/site PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
# Models are written and read again: 52 GB at once, from memory where there is enough.
folder=/tmp/forge-gpu
if [[ -d /dev/shm/forge-gpu ]] || (($(df --output=avail -BG /dev/shm | tail -1 | tr -dc 0-9) >= 60)); then
  folder=/dev/shm/forge-gpu
fi
logs=$folder/logs
mkdir -p "$logs" "$out"
cores=$(nproc)
python3 -m compileall -q -j "$cores" /tmp/site > /dev/null 2>&1
say "unpacked into /tmp/site; models in $folder, $cores cores"

# Triton and inductor compile for the card: without a compiler no stage of Unsloth can pass.
python3 -c "
from pathlib import Path
from job.preflight.doctor.node import compiler
print(compiler(Path('/tmp'), needed=True))"

build() {
  python3 -c "
from pathlib import Path
from benchmarks.gpu import shapes
shapes.build('$1', Path('$folder/cuda-$1'), tiny=False)" > "$logs/build-$1.log" 2>&1
  say "model $1 built: $?"
}

stage() { # SECONDS NAME [FLAGS...]
  local seconds=$1 name=$2 code=0
  shift
  timeout "$(at_most "$seconds")" python3 -m benchmarks.gpu "$@" --folder "$folder" --out "$out/gpu-cuda.json" \
    > "$logs/stage-$name.log" 2>&1 || code=$?
  say "$name: $code"
  tail -n 25 "$logs/stage-$name.log"
  tar czf "$out/logs.tgz" -C "$folder" logs measured-cuda 2> /dev/null
}

build 8b & first=$!
build 14b & second=$!
stage 270 contract
wait "$first"
stage 330 job
wait "$second"
stage 240 speed-8b --profiles balanced
stage 300 speed-14b --profiles max_quality
cat "$out/gpu-cuda.md"
