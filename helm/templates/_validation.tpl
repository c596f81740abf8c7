{{/* A pod without a GPU that looks at the machine, the store, the settings and every row of the
data. Takes root and runId. */}}
{{- define "forge-job.validationSpec" -}}
{{- $root := .root -}}
{{- include "forge-job.podCommon" $root }}
{{- include "forge-job.validationScheduling" $root }}
{{- $resources := $root.Values.validation.resources | default dict | toYaml }}
initContainers:
  - {{ include "forge-job.container" (merge (dict "name" "doctor" "args" (list "doctor" "--no-gpu")) .) | nindent 4 | trim }}
    resources:
      {{- $resources | nindent 6 }}
containers:
  - {{ include "forge-job.container" (merge (dict "name" "validate" "args" (list "validate")) .) | nindent 4 | trim }}
    resources:
      {{- $resources | nindent 6 }}
{{- end }}

{{/* Where the pods go that need no GPU, those of a workflow too. Each field on a line of its own. */}}
{{- define "forge-job.validationScheduling" -}}
{{- range $field := list "nodeSelector" "tolerations" }}
{{- with get $.Values.validation $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
