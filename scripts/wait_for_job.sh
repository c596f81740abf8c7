#!/usr/bin/env bash
# wait_for_job.sh <namespace> <job> <seconds>: ends with the run. Its exit status is 0 where the Job
# is complete, else the exit code of its last pod (README.md lists them), or 124 after so long.
set -euo pipefail
namespace=$1 job=$2 deadline=$((SECONDS + $3))

condition() {
  kubectl --namespace "$namespace" get job "$job" --output \
    "jsonpath={.status.conditions[?(@.type==\"$1\")].status}"
}

last_pod() {
  kubectl --namespace "$namespace" get pods --selector "batch.kubernetes.io/job-name=$job" \
    --sort-by=.metadata.creationTimestamp --output \
    "jsonpath={.items[-1:].status.containerStatuses[0].state.terminated.$1}"
}

while ((SECONDS < deadline)); do
  if [ "$(condition Complete)" = True ]; then
    echo "complete: $(last_pod message)"
    exit 0
  fi
  if [ "$(condition Failed)" = True ]; then
    echo "failed: $(last_pod message)" >&2
    code=$(last_pod exitCode)
    exit "${code:-1}"
  fi
  sleep "${WAIT_SECONDS:-15}"
done
echo "the Job has not ended; it goes on" >&2
exit 124
