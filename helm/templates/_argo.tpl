{{/* Parts of the WorkflowTemplate. */}}

{{- define "forge-job.argoInputs" -}}
parameters:
{{- range list "run-id" "dataset-uri" "output-uri" "profile" "model-family" "model" }}
  - name: {{ . }}
{{- end }}
{{- end }}

{{- define "forge-job.argoArguments" -}}
parameters:
  - name: run-id
    value: "{{`{{=inputs.parameters['run-id'] == '' ? workflow.name : inputs.parameters['run-id']}}`}}"
{{- range list "dataset-uri" "output-uri" "profile" "model-family" "model" }}
  - name: {{ . }}
    value: {{ printf "{{inputs.parameters.%s}}" . | quote }}
{{- end }}
{{- end }}

{{/* A template has no field of its own for it. */}}
{{- define "forge-job.argoGrace" -}}
podSpecPatch: {{ printf `{"terminationGracePeriodSeconds": %s, "enableServiceLinks": false}` (include "forge-job.value" .Values.terminationGracePeriodSeconds) | squote }}
{{- end }}

{{/* Argo names its container itself, and its emissary needs the command. */}}
{{- define "forge-job.argoContainer" -}}
{{- $container := include "forge-job.container" (merge (dict "name" "main") .) | fromYaml -}}
{{- $_ := set $container "command" (list "python" "-m" "job") -}}
{{- $_ = unset $container "terminationMessagePath" -}}
{{- toYaml $container -}}
{{- end }}

{{- define "forge-job.argoScheduling" -}}
{{- $fields := include "forge-job.scheduling" . | fromYaml | default dict -}}
{{- toYaml (pick $fields "nodeSelector" "affinity" "tolerations" "priorityClassName" "schedulerName") -}}
{{- end }}
