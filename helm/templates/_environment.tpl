{{/* The settings as variables. */}}

{{/* A number, a word or a list as a variable's value. YAML's numbers arrive as floats, and a
million would be written as 1e+06, which is no whole number to the job. */}}
{{- define "forge-job.value" -}}
{{- if kindIs "slice" . -}}
{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ printf "%.0f" . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{/* `loraR` → `FORGE_LORA_R` */}}
{{- define "forge-job.variable" -}}
{{ printf "FORGE_%s" (snakecase . | upper) }}
{{- end }}

{{/* Takes root, runId and, optionally, overrides: variable → value. */}}
{{- define "forge-job.environment" -}}
{{- $values := .root.Values -}}
{{- $variables := dict
  "FORGE_RUN_ID" .runId
  "FORGE_DATASET_URI" (include "forge-job.value" $values.datasetUri)
  "FORGE_OUTPUT_URI" $values.outputUri
  "FORGE_PROFILE" $values.profile
  "FORGE_MODEL_FAMILY" $values.modelFamily
  "FORGE_GRACE_SECONDS" (include "forge-job.grace" .root)
  "FORGE_METRICS_PORT" (include "forge-job.value" $values.metrics.port)
  "FORGE_WORK_DIR" $values.scratch.mountPath
  "FORGE_IMAGE" (include "forge-job.image" .root)
  "HOME" $values.scratch.mountPath
  "TMPDIR" $values.scratch.mountPath
-}}
{{- if and $values.gpu.enabled (gt (int $values.gpu.count) 1) }}{{ $_ := set $variables "PET_NPROC_PER_NODE" (include "forge-job.value" $values.gpu.count) }}{{ end -}}
{{- with $values.model }}{{ $_ := set $variables "FORGE_MODEL" . }}{{ end -}}
{{- with $values.s3.endpointUrl }}{{ $_ := set $variables "AWS_ENDPOINT_URL_S3" . }}{{ end -}}
{{- with $values.s3.region }}{{ $_ := set $variables "AWS_DEFAULT_REGION" . }}{{ end -}}
{{- range $name, $value := $values.settings -}}
{{- $_ := set $variables (include "forge-job.variable" $name) (include "forge-job.value" $value) -}}
{{- end -}}
{{- range $name, $value := .overrides | default dict }}{{ $_ := set $variables $name $value }}{{ end -}}
{{- range $name, $value := $variables }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $values.huggingFace.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . | quote }}
      key: {{ $values.huggingFace.key | quote }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "forge-job.environmentFrom" -}}
{{- with .Values.credentials.existingSecret }}
- secretRef:
    name: {{ . | quote }}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}
