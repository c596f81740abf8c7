#!/usr/bin/env bash
# wait_for_job.sh <namespace> <job> <seconds>: ends with the run. Its exit status is 0 where the Job
# is complete, else the exit code of its last pod (README.md lists them; 1 where it has none), 124
# after so long, or kubectl's own where that has failed twenty times in a row: for five minutes. It
# is 1 also where the API server has refused every pod for as long, but for a quota, which gets free.
set -euo pipefail
namespace=$1 job=$2 deadline=$((SECONDS + $3)) failures=0 status=0 refusals=0

# What has become true of the Job, between spaces, and how many pods of each kind it has had.
conditions() {
  local pods='{.status.active}{.status.succeeded}{.status.failed}'
  kubectl --namespace "$namespace" get job "$job" --request-timeout 30s --output \
    "jsonpath= {.status.conditions[?(@.status==\"True\")].type} pods=$pods "
}

# Why the Job's controller could make no pod: an account that isn't there, a policy. Whoever may
# not read events waits on.
refusal() {
  local of="involvedObject.kind=Job,involvedObject.name=$job,reason=FailedCreate"
  kubectl --namespace "$namespace" get events --request-timeout 30s --field-selector "$of" \
    --sort-by=.lastTimestamp --output 'jsonpath={.items[-1:].message}' 2>/dev/null || true
}

# Counts how often in a row there was no pod, and a reason for that.
look_for_a_pod() {
  local why
  why=$(refusal)
  if [[ -z $why || $why == *'exceeded quota'* ]]; then
    refusals=0
    return
  fi
  refusals=$((refusals + 1))
  ((refusals < 20)) && return
  echo "no pod could be made, mend this and the Job goes on by itself: $why" >&2
  exit 1
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
    *' pods= ') look_for_a_pod ;;
    *) refusals=0 ;;
  esac
  sleep "${WAIT_SECONDS:-15}"
done
((failures == 0)) || give_up
echo "the Job has not ended; it goes on" >&2
exit 124
