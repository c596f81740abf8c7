#!/usr/bin/env bash
# wait_for_job.sh <namespace> <job> <seconds>: ends with the run. Its exit status is 0 where the Job
# is complete, else the exit code of its last pod (README.md lists them; 1 where it has none), or
# 124 after so long.
set -euo pipefail
namespace=$1 job=$2 deadline=$((SECONDS + $3))

condition() {
  kubectl --namespace "$namespace" get job "$job" --output \
    "jsonpath={.status.conditions[?(@.type==\"$1\")].status}"
}

# Of the container that trains, which Kubeflow Trainer calls `node`: others may have been injected,
# and jsonpath knows no "or".
last_pod() {
  local path=''
  for container in job node; do
    path+="{.items[-1:].status.containerStatuses[?(@.name==\"$container\")].state.terminated.$1}"
  done
  kubectl --namespace "$namespace" get pods --selector "batch.kubernetes.io/job-name=$job" \
    --sort-by=.metadata.creationTimestamp --output "jsonpath=$path"
}

while ((SECONDS < deadline)); do
  if [ "$(condition Complete)" = True ]; then
    echo "complete: $(last_pod message)"
    exit 0
  fi
  if [ "$(condition Failed)" = True ]; then
    echo "failed: $(last_pod message)" >&2
    code=$(last_pod exitCode || true)
    # Also where the last pod ended well, and the Job was over its deadline.
    [ "${code:-0}" != 0 ] || code=1
    exit "$code"
  fi
  sleep "${WAIT_SECONDS:-15}"
done
echo "the Job has not ended; it goes on" >&2
exit 124
