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

{{/* The name of a hook's object: takes root and kind. Before a hook Helm deletes what has its name,
whoever made it, and `team` with an entry `weather` begins like `team-weather`: a hash of release and
entry tells them apart. It is of nothing else, so that each hook still finds the one before it. */}}
{{- define "forge-job.validationName" -}}
{{- $hash := printf "%s/%s" .root.Release.Name (.root.entry | default "") | sha256sum | trunc 8 -}}
{{- $begin := include "forge-job.runPrefix" .root | trunc (sub 53 (len .kind) | int) | trimAll "-." -}}
{{ printf "%s-%s-%s" $begin $hash .kind }}
{{- end }}

{{/* Where the pods go that need no GPU, those of a workflow too. Each field on a line of its own. */}}
{{- define "forge-job.validationScheduling" -}}
{{- range $field := list "nodeSelector" "tolerations" }}
{{- with get $.Values.validation $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- end }}
