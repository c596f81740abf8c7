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

{{/* Whether the release's own account is the workflows': it has the identity that opens the bucket. */}}
{{- define "forge-job.argoOwnAccount" -}}
{{- $account := .Values.serviceAccount -}}
{{- if and (not .Values.argo.serviceAccountName) (or $account.create $account.name) }}yes{{ end -}}
{{- end }}

{{/* What the workflow is, before its parameters and templates. */}}
{{- define "forge-job.argoSpec" -}}
{{- if include "forge-job.argoOwnAccount" . }}
serviceAccountName: {{ include "forge-job.serviceAccount" . | quote }}
# The account mounts no token of itself, and Argo's executor reports with one.
automountServiceAccountToken: true
{{- else }}
{{- with .Values.argo.serviceAccountName }}
serviceAccountName: {{ . | quote }}
{{- end }}
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
  name: {{ include "forge-job.fullname" .root | quote }}
  template: {{ .template }}
  {{- if eq .root.Values.argo.kind "ClusterWorkflowTemplate" }}
  clusterScope: true
  {{- end }}
{{- end }}

{{/* What a template has no field of its own for. */}}
{{- define "forge-job.argoPatch" -}}
{{- $grace := include "forge-job.grace" . | int -}}
{{ dict "terminationGracePeriodSeconds" $grace "enableServiceLinks" false | toJson }}
{{- end }}

{{- define "forge-job.argoGrace" -}}
podSpecPatch: {{ include "forge-job.argoPatch" . | quote }}
{{- end }}

{{/* Argo names its container itself, and its emissary needs the command. */}}
{{- define "forge-job.argoContainer" -}}
{{- $container := include "forge-job.container" (merge (dict "name" "main") .) | fromYaml -}}
{{- $_ := set $container "command" (list "python" "-m" "job") -}}
{{- $_ = unset $container "terminationMessagePath" -}}
{{- toYaml $container -}}
{{- end }}

{{/* Of every step but the one that trains: the network policy selects its pod, it opens the bucket,
for which some clouds give an identity by a label only, it needs no node with a GPU, and a store that
is throttled or a node that goes away must not fail the workflow, whose training may be done.
No retryPolicy, as in the one that trains. -1 is for a pod without a code. */}}
{{- define "forge-job.argoWithoutGpu" -}}
metadata:
  labels:
    {{- include "forge-job.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/component: workflow
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- include "forge-job.validationScheduling" . }}
retryStrategy:
  limit: "5"
  expression: >-
    lastRetry.status == 'Error' ||
    asInt(lastRetry.exitCode) in [-1, 69, 70, 137, 143]
  # A quarter of an hour in all.
  backoff:
    duration: 30s
    factor: "2"
{{- end }}

{{/* The step that reads a run's record. Takes root and, where a workflow has one of them, exported:
its outputs are then the workflow's. */}}
{{- define "forge-job.argoVerdict" -}}
{{- /* An output may end in a slash, and a key with two of them in a row is another one. */ -}}
{{- $uri := "{{=trimSuffix(inputs.parameters['output-uri'], '/')}}/{{inputs.parameters.run-id}}" -}}
{{- $path := printf "%s/verdict.json" .root.Values.scratch.mountPath -}}
inputs:
  {{- include "forge-job.argoInputs" .root | nindent 2 }}
{{ include "forge-job.argoWithoutGpu" .root }}
{{- if .exported }}
# A DAG that fails has no outputs (argo-workflows#6345); what has a globalName is the
# workflow's, however that ends.
{{- end }}
outputs:
  parameters:
    - name: run-uri
      {{- if .exported }}
      globalName: run-uri
      {{- end }}
      value: {{ $uri | quote }}
    - name: adapter-uri
      {{- if .exported }}
      globalName: adapter-uri
      {{- end }}
      value: {{ printf "%s/adapter" $uri | quote }}
    # The record of the run: status, results of the gate, steps, attempts.
    - name: verdict
      {{- if .exported }}
      globalName: verdict
      {{- end }}
      valueFrom:
        path: {{ $path }}
container:
  {{- $overrides := include "forge-job.argoOverrides" .root | fromYaml }}
  {{- $arguments := list "status" "{{inputs.parameters.output-uri}}/{{inputs.parameters.run-id}}" "--json" "--output" $path }}
  {{- include "forge-job.argoContainer" (dict "root" .root "runId" "" "overrides" $overrides "args" $arguments) | nindent 2 }}
  resources:
    {{- toYaml .root.Values.validation.resources | nindent 4 }}
{{- end }}

{{/* The task that calls the hook, after one called `verdict`; `depends` is the caller's. */}}
{{- define "forge-job.argoPromote" -}}
{{- $verdict := "tasks.verdict.outputs.parameters.verdict" -}}
# A run without a gate succeeds, too; and one that passed it needn't be the one named.
when: "{{`{{=`}}jsonpath({{ $verdict }}, '$.promoted') == true && jsonpath({{ $verdict }}, '$.results').gate == 'passed'{{`}}`}}"
templateRef:
  name: {{ .Values.argo.promote.templateRef | quote }}
  template: {{ .Values.argo.promote.template | quote }}
arguments:
  parameters:
    - name: run-uri
      value: "{{`{{tasks.verdict.outputs.parameters.run-uri}}`}}"
    - name: adapter-uri
      value: "{{`{{tasks.verdict.outputs.parameters.adapter-uri}}`}}"
{{- end }}

{{/* Where the pod that trains may run, beside its grace period. */}}
{{- define "forge-job.argoScheduling" -}}
{{- $fields := include "forge-job.scheduling" . | fromYaml | default dict -}}
{{- $patch := pick $fields "runtimeClassName" "topologySpreadConstraints" -}}
podSpecPatch: {{ merge $patch (include "forge-job.argoPatch" . | fromJson) | toJson | quote }}
{{- with omit $fields "runtimeClassName" "topologySpreadConstraints" }}
{{ toYaml . }}
{{- end }}
{{- end }}
