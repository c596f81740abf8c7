{{/* Names and labels. */}}

{{- define "forge-job.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{/* The run's id. It is derived from the whole pod and its release, never from the revision: the
same values name the same run, at every upgrade and in every cluster. As JSON, so that neither a
comment nor how the chart quotes makes another run. */}}
{{- define "forge-job.runId" -}}
{{- if .Values.runId -}}
{{ .Values.runId }}
{{- else -}}
{{- $spec := include "forge-job.jobSpec" (dict "root" . "runId" "derived") | fromYaml | toJson -}}
{{- if ne .Values.distributed.kind "none" }}{{ $spec = printf "%s/%d nodes" $spec (int .Values.distributed.nodes) }}{{ end -}}
{{- $hash := printf "%s/%s" .Release.Namespace $spec | sha256sum | trunc 8 -}}
{{ printf "%s-%s-%s" (include "forge-job.runPrefix" .) (.Values.profile | replace "_" "-") $hash }}
{{- end -}}
{{- end }}

{{/* The Job's name: the run's, after the release's where it does not begin with it already. */}}
{{- define "forge-job.jobName" -}}
{{- $id := include "forge-job.runId" . -}}
{{- $release := include "forge-job.fullname" . -}}
{{ hasPrefix $release $id | ternary $id (printf "%s-%s" $release $id) }}
{{- end }}

{{- define "forge-job.image" -}}
{{- $image := .Values.image -}}
{{- $name := compact (list $image.registry $image.repository) | join "/" -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- define "forge-job.serviceAccount" -}}
{{- $made := .Values.serviceAccount.create | ternary (include "forge-job.fullname" .) "default" -}}
{{ .Values.serviceAccount.name | default $made }}
{{- end }}

{{/* What no later release of the chart changes: a Job's template is immutable. */}}
{{- define "forge-job.selectorLabels" -}}
app.kubernetes.io/name: forge-job
app.kubernetes.io/instance: {{ include "forge-job.fullname" . | quote }}
{{- end }}

{{- define "forge-job.labels" -}}
{{ include "forge-job.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What a Job that an uninstall leaves alone goes on needing: its next pod has this account and is
let through by this policy. */}}
{{- define "forge-job.kept" -}}
{{- if and .Values.job.enabled .Values.job.keep -}}
helm.sh/resource-policy: keep
{{- end -}}
{{- end }}
