{{/* The Job's spec. The run's id is a hash of it, so it holds nothing that a new version of the
chart would change for its own sake. */}}

{{- define "forge-job.deadline" -}}
{{- $days := get (dict "fast_dev" 1 "balanced" 3 "max_quality" 7) .Values.profile -}}
{{ include "forge-job.value" .Values.job.activeDeadlineSeconds | int | default (mul $days 86400) }}
{{- end }}

{{/* A checkpoint of rank 128 has gigabytes, which take longer to save. */}}
{{- define "forge-job.grace" -}}
{{- $seconds := get (dict "fast_dev" 60 "balanced" 60 "max_quality" 120) .Values.profile -}}
{{ include "forge-job.value" .Values.terminationGracePeriodSeconds | int | default $seconds }}
{{- end }}

{{- define "forge-job.jobSpec" -}}
backoffLimit: {{ include "forge-job.value" .root.Values.job.backoffLimit }}
activeDeadlineSeconds: {{ include "forge-job.deadline" .root }}
ttlSecondsAfterFinished: {{ include "forge-job.value" .root.Values.job.ttlSecondsAfterFinished }}
podReplacementPolicy: Failed
podFailurePolicy:
  {{- include "forge-job.failurePolicy" "job" | nindent 2 }}
template:
  metadata:
    labels:
      {{- include "forge-job.podLabels" . | nindent 6 }}
    {{- with include "forge-job.podAnnotations" .root | trim }}
    annotations:
      {{- . | nindent 6 }}
    {{- end }}
  spec:
    terminationGracePeriodSeconds: {{ include "forge-job.grace" .root }}
    {{- include "forge-job.podCommon" .root | nindent 4 }}
    {{- with include "forge-job.scheduling" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    containers:
      - {{ include "forge-job.container" (merge (dict "name" "job" "args" (list .root.Values.job.command)) .) | nindent 8 | trim }}
        {{- if eq .root.Values.job.command "run" }}
        {{- include "forge-job.trainingExtras" .root | nindent 8 }}
        {{- else }}
        resources:
          {{- include "forge-job.resources" .root | nindent 10 }}
        {{- end }}
{{- end }}

{{/* The table of exit codes (README.md, job/errors.py): a test compares the three. Takes the name of
the container. */}}
{{- define "forge-job.failurePolicy" -}}
rules:
  # Preempted by the cluster, or fenced by a newer attempt: replaced, and not counted.
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: Ignore
    onExitCodes:
      containerName: {{ . }}
      operator: In
      values: [75, 76]
  # No retry can mend these; the termination message says what can.
  - action: FailJob
    onExitCodes:
      containerName: {{ . }}
      operator: In
      values: [65, 71, 77, 78, 80, 81]
{{- end }}
