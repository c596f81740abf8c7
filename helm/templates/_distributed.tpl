{{/* Several pods for one run. What a JobSet and a TrainJob share takes root, runId and name. */}}

{{/* One pod a node: the Job's spec, several times over, and where the pods meet. */}}
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

{{/* The same as Kubeflow Trainer wants it: it finds the container by its name, and says itself how
many pods there are and where they meet. */}}
{{- define "forge-job.trainerSpec" -}}
{{- $spec := include "forge-job.nodesSpec" . | fromYaml -}}
{{- $_ := unset $spec "completions" -}}
{{- $_ := unset $spec "parallelism" -}}
{{- $container := first $spec.template.spec.containers -}}
{{- $_ := set $container "name" "node" -}}
{{- $own := list -}}
{{- range $container.env }}{{ if not (hasPrefix "PET_" .name) }}{{ $own = append $own . }}{{ end }}{{ end -}}
{{- $_ := set $container "env" $own -}}
{{- range $spec.podFailurePolicy.rules }}{{ with .onExitCodes }}{{ $_ := set . "containerName" "node" }}{{ end }}{{ end -}}
{{- toYaml $spec }}
{{- end }}

{{- define "forge-job.trainingRuntimeSpec" -}}
mlPolicy:
  numNodes: {{ .root.Values.distributed.nodes }}
  torch: {}
template:
  spec:
    {{- include "forge-job.jobSetSpec" . | nindent 4 }}
    replicatedJobs:
      - name: node
        replicas: 1
        template:
          metadata:
            labels:
              trainer.kubeflow.org/trainjob-ancestor-step: trainer
          spec:
            {{- include "forge-job.trainerSpec" . | nindent 12 }}
{{- end }}

{{- define "forge-job.jobSetSpec" -}}
ttlSecondsAfterFinished: {{ include "forge-job.value" .root.Values.job.ttlSecondsAfterFinished }}
network:
  enableDNSHostnames: true
  # The others look the first pod up before anything in it is ready.
  publishNotReadyAddresses: true
# The Job inside replaces pods one by one, by their exit codes; what it gives up nobody restarts.
failurePolicy:
  maxRestarts: 0
  rules:
    - name: givenUp
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy, BackoffLimitExceeded, DeadlineExceeded]
{{- end }}

{{- define "forge-job.distributedMetadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "forge-job.labels" .root | nindent 2 }}
  app.kubernetes.io/component: training
  forge-job/run-id: {{ .runId | quote }}
  {{- with .root.Values.kueue.queueName }}
  kueue.x-k8s.io/queue-name: {{ . | quote }}
  {{- end }}
  {{- with .root.Values.kueue.priorityClass }}
  kueue.x-k8s.io/priority-class: {{ . | quote }}
  {{- end }}
{{- if or .root.Values.job.keep .root.Values.job.annotations }}
annotations:
  {{- if .root.Values.job.keep }}
  helm.sh/resource-policy: keep
  {{- end }}
  {{- with .root.Values.job.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
