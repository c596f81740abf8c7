{{/* One pod a node: the Job's spec, several times over, and where the pods meet. Takes root, runId
and name. */}}
{{- define "forge-job.nodesSpec" -}}
{{- $values := .root.Values -}}
{{- $nodes := int $values.distributed.nodes -}}
{{- $spec := include "forge-job.jobSpec" . | fromYaml -}}
{{- $_ := unset $spec "ttlSecondsAfterFinished" -}}
{{- $_ := set $spec "completionMode" "Indexed" -}}
{{- $_ := set $spec "completions" $nodes -}}
{{- $_ := set $spec "parallelism" $nodes -}}
{{/* The pods of an attempt fail together, and each is counted. */}}
{{- $_ := set $spec "backoffLimit" (mul $nodes (int $values.job.backoffLimit)) -}}
{{- $index := dict "fieldRef" (dict "fieldPath" "metadata.annotations['batch.kubernetes.io/job-completion-index']") -}}
{{- $container := first $spec.template.spec.containers -}}
{{- $_ := set $container "env" (concat $container.env (list
  (dict "name" "PET_NNODES" "value" (toString $nodes))
  (dict "name" "PET_NODE_RANK" "valueFrom" $index)
  (dict "name" "PET_MASTER_ADDR" "value" (printf "%s-node-0-0.%s" .name .name))
  (dict "name" "PET_MASTER_PORT" "value" (include "forge-job.value" $values.distributed.port))
)) -}}
{{- toYaml $spec }}
{{- end }}
