{{/* The pod that trains, and the smaller one that validates. Each takes root and runId. */}}

{{/* Disk and memory by profile: a model of 14B in 4 bits has 10 GB, a checkpoint with rank 128
3.3 GB, of which three can be on their way; loading takes what the model has on disk in memory. */}}
{{- define "forge-job.scratchSize" -}}
{{ .Values.scratch.size | default (get (dict "fast_dev" "50Gi" "balanced" "50Gi" "max_quality" "80Gi") .Values.profile) }}
{{- end }}

{{/* A process for each card: 4 GB more for it by job/preflight/doctor/needs.py, of which this is twice. The
model's file is in memory once for all of them. What the values say of a limit or of a request goes
for the other, too, as the API takes no request above its limit. */}}
{{- define "forge-job.resources" -}}
{{- $own := .Values.resources -}}
{{- $processes := .Values.gpu.enabled | ternary .Values.gpu.count 1 | int -}}
{{- $first := get (dict "fast_dev" 24 "balanced" 24 "max_quality" 32) .Values.profile -}}
{{- $memory := sub $processes 1 | mul 8 | add $first | printf "%dGi" -}}
{{- $memory = $own.limits.memory | default $own.requests.memory | default $memory -}}
{{- $cpu := $own.limits.cpu | default (mul 3 $processes | toString) -}}
{{- $requests := dict "cpu" $cpu "memory" $memory -}}
{{- $limits := dict "memory" $memory -}}
{{- if not .Values.scratch.storageClassName -}}
{{- $size := include "forge-job.scratchSize" . -}}
{{- $size = get $own.limits "ephemeral-storage" | default (get $own.requests "ephemeral-storage") | default $size -}}
{{- $_ := set $requests "ephemeral-storage" $size -}}
{{- $_ := set $limits "ephemeral-storage" $size -}}
{{- end -}}
{{- if .Values.gpu.enabled -}}
{{- $count := include "forge-job.value" .Values.gpu.count -}}
{{- $_ := set $requests .Values.gpu.resource $count -}}
{{- $_ := set $limits .Values.gpu.resource $count -}}
{{- end -}}
requests:
  {{- toYaml (merge (deepCopy .Values.resources.requests) $requests) | nindent 2 }}
limits:
  {{- toYaml (merge (deepCopy .Values.resources.limits) $limits) | nindent 2 }}
{{- end }}

{{- define "forge-job.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/* OpenShift gives user and group itself, and refuses others: null leaves them out. */}}
{{- define "forge-job.podSecurity" -}}
{{- $own := .Values.podSecurityContext | default dict -}}
runAsNonRoot: true
{{- range $field := list "runAsUser" "fsGroup" }}
{{- $id := index $own $field }}
{{- if not (kindIs "invalid" $id) }}
{{ $field }}: {{ include "forge-job.value" $id }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "forge-job.mounts" -}}
- name: scratch
  mountPath: {{ .Values.scratch.mountPath }}
- name: shm
  mountPath: /dev/shm
{{- if or .Values.dataset.configMap .Values.dataset.volume }}
- name: dataset
  mountPath: {{ .Values.dataset.mountPath }}
  readOnly: true
{{- end }}
{{- if .Values.modelVolume.source }}
- name: models
  mountPath: {{ .Values.modelVolume.mountPath }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "forge-job.volumes" -}}
- name: scratch
  {{- if .Values.scratch.storageClassName }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes:
          - ReadWriteOnce
        storageClassName: {{ .Values.scratch.storageClassName | quote }}
        resources:
          requests:
            storage: {{ include "forge-job.scratchSize" . }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ include "forge-job.scratchSize" . }}
  {{- end }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.scratch.shmSize }}
{{- if .Values.dataset.configMap }}
- name: dataset
  configMap:
    name: {{ .Values.dataset.configMap | quote }}
{{- else if .Values.dataset.volume }}
- name: dataset
  {{- toYaml .Values.dataset.volume | nindent 2 }}
{{- end }}
{{- with .Values.modelVolume.source }}
- name: models
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes root, runId, name, args, and overrides of variables. */}}
{{- define "forge-job.container" -}}
{{- $values := .root.Values -}}
name: {{ .name }}
image: {{ include "forge-job.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  {{- toYaml .args | nindent 2 }}
env:
  {{- include "forge-job.environment" . | trim | nindent 2 }}
{{- with include "forge-job.environmentFrom" .root | trim }}
envFrom:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "forge-job.containerSecurity" .root | nindent 2 }}
volumeMounts:
  {{- include "forge-job.mounts" .root | nindent 2 }}
terminationMessagePath: {{ $values.settings.terminationLog | default "/dev/termination-log" }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* What only the container that trains has. */}}
{{- define "forge-job.trainingExtras" -}}
ports:
  - name: metrics
    containerPort: {{ include "forge-job.value" .Values.metrics.port }}
{{- if or (ne .Values.distributed.kind "none") (and .Values.gpu.enabled (gt (int .Values.gpu.count) 1)) }}
{{- $period := 10 }}
{{- $join := .Values.settings.rankJoinSeconds | default 900 | toString | float64 }}
# Nothing listens before the processes have met, and until then the liveness probe waits: for as
# long as they wait for each other, and 300 s for what comes before that.
startupProbe:
  httpGet:
    path: /healthz
    port: {{ include "forge-job.value" .Values.metrics.port }}
  periodSeconds: {{ $period }}
  timeoutSeconds: 5
  failureThreshold: {{ divf (addf $join 300) $period | ceil | int }}
{{- end }}
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ include "forge-job.value" .Values.metrics.port }}
  initialDelaySeconds: 60
  periodSeconds: 30
  timeoutSeconds: 5
  failureThreshold: 3
resources:
  {{- include "forge-job.resources" . | nindent 2 }}
{{- end }}

{{/* What both pods have; no token, for nothing here talks to the API server. */}}
{{- define "forge-job.podCommon" -}}
restartPolicy: Never
serviceAccountName: {{ include "forge-job.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "forge-job.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "forge-job.volumes" . | nindent 2 }}
{{- end }}

{{/* A node whose cards are shared or sliced has the taint of whole ones. */}}
{{- define "forge-job.tolerations" -}}
{{- $gpu := list -}}
{{- if .Values.gpu.enabled -}}
{{- $keys := list .Values.gpu.resource -}}
{{- if hasPrefix "nvidia.com/" .Values.gpu.resource }}{{ $keys = append $keys "nvidia.com/gpu" | uniq }}{{ end -}}
{{- range $keys }}{{ $gpu = append $gpu (dict "key" . "operator" "Exists" "effect" "NoSchedule") }}{{ end -}}
{{- end -}}
{{- concat $gpu .Values.tolerations | toYaml -}}
{{- end }}

{{- define "forge-job.scheduling" -}}
{{- range $field := list "nodeSelector" "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with get $.Values $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
{{- if or .Values.gpu.enabled .Values.tolerations }}
tolerations:
  {{- include "forge-job.tolerations" . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "forge-job.podAnnotations" -}}
{{- if .Values.disruption.protect }}
karpenter.sh/do-not-disrupt: "true"
cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
{{- end }}
{{- with .Values.kueue.preferredTopology }}
kueue.x-k8s.io/podset-preferred-topology: {{ . | quote }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "forge-job.podLabels" -}}
{{ include "forge-job.selectorLabels" .root }}
app.kubernetes.io/component: training
forge-job/run-id: {{ .runId | quote }}
forge-job/profile: {{ .root.Values.profile | quote }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
