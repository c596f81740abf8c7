{{/* Parts of the WorkflowTemplates. */}}

{{/* What a run is told by parameter, each as the variable of that name. */}}
{{- define "forge-job.argoParameters" -}}
run-id dataset-uri output-uri profile model-family model settings
{{- end }}

{{/* Those of a template without more: takes root and, optionally, more names. */}}
{{- define "forge-job.argoInputs" -}}
parameters:
{{- range concat (include "forge-job.argoParameters" . | splitList " ") (.more | default list) }}
  - name: {{ . }}
{{- end }}
{{- end }}

{{- define "forge-job.argoArguments" -}}
parameters:
  - name: run-id
    value: "{{`{{=inputs.parameters['run-id'] == '' ? workflow.name : inputs.parameters['run-id']}}`}}"
{{- range include "forge-job.argoParameters" . | splitList " " | rest }}
  - name: {{ . }}
    value: {{ printf "{{inputs.parameters.%s}}" . | quote }}
{{- end }}
{{- end }}

{{/* The variables of these parameters. */}}
{{- define "forge-job.argoOverrides" -}}
{{- range $name := include "forge-job.argoParameters" . | splitList " " }}
FORGE_{{ $name | replace "-" "_" | upper }}: {{ printf "{{inputs.parameters.%s}}" $name | quote }}
{{- end }}
{{- end }}

{{/* The defaults of all but the first of them. */}}
{{- define "forge-job.argoDefaults" -}}
- name: dataset-uri
  value: {{ include "forge-job.value" .Values.datasetUri | quote }}
- name: output-uri
  value: {{ .Values.outputUri | quote }}
- name: profile
  value: {{ .Values.profile }}
  enum: [fast_dev, balanced, max_quality]
- name: model-family
  value: {{ .Values.modelFamily }}
- name: model
  value: {{ .Values.model | quote }}
# Any others, as one JSON object: {"lora_r": 32}. They outrank the chart's values.
- name: settings
  value: ""
{{- end }}

{{/* What the workflow is, before its parameters and templates. */}}
{{- define "forge-job.argoSpec" -}}
{{- with .Values.argo.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "forge-job.podSecurity" . | nindent 2 }}
volumes:
  {{- include "forge-job.volumes" . | nindent 2 }}
{{- end }}

{{/* A template of the first WorkflowTemplate: takes root and template. */}}
{{- define "forge-job.argoReference" -}}
templateRef:
  name: {{ include "forge-job.fullname" .root }}
  template: {{ .template }}
  {{- if eq .root.Values.argo.kind "ClusterWorkflowTemplate" }}
  clusterScope: true
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
