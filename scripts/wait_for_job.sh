#!/usr/bin/env bash
# wait_for_job.sh <namespace> <job> <seconds>: ends with the run. Its exit status is 0 where the Job
# is complete, else the exit code of its last pod (README.md lists them; 1 where it has none), 124
# after so long, or kubectl's own where that has failed twenty times in a row: for five minutes.
set -euo pipefail
namespace=$1 job=$2 deadline=$((SECONDS + $3)) failures=0 status=0

# What has become true of the Job, between spaces.
conditions() {
  kubectl --namespace "$namespace" get job "$job" --request-timeout 30s --output \
    'jsonpath= {.status.conditions[?(@.status=="True")].type} '
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

give_up() {
  echo "kubectl failed $failures times in a row, see above; the Job may go on" >&2
  exit "$status"
}

while ((SECONDS < deadline)); do
  if found=$(conditions); then
    failures=0
  else
    status=$? found='' failures=$((failures + 1))
    ((failures < 20)) || give_up
  fi
  case $found in
    *' Complete '*)
      echo "complete: $(last_pod message)"
      exit 0
      ;;
    *' Failed '*)
      echo "failed: $(last_pod message)" >&2
      code=$(last_pod exitCode || true)
      # Also where the last pod ended well, and the Job was over its deadline.
      [ "${code:-0}" != 0 ] || code=1
      exit "$code"
      ;;
  esac
  sleep "${WAIT_SECONDS:-15}"
done
((failures == 0)) || give_up
echo "the Job has not ended; it goes on" >&2
exit 124
