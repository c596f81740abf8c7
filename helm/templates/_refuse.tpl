{{/* What the schema can't see: values that don't go together. All problems at once. */}}

{{- define "forge-job.usesS3" -}}
{{- $uris := append (splitList "," (include "forge-job.value" .Values.datasetUri)) .Values.outputUri -}}
{{- range append $uris .Values.model }}{{ if hasPrefix "s3://" (trim .) }}yes {{ end }}{{ end -}}
{{- end }}

{{- define "forge-job.refuseCredentials" -}}
{{- $secret := .Values.credentials.existingSecret -}}
{{- $identity := .Values.credentials.workloadIdentity -}}
{{- if and $secret $identity }}
- credentials: both existingSecret and workloadIdentity are set; keep the one that opens the bucket
{{- else if and (include "forge-job.usesS3" .) (not $secret) (not $identity) }}
- credentials: nothing opens the bucket; set credentials.existingSecret to a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or credentials.workloadIdentity=true with a service account
{{- end }}
{{- if and .Values.serviceAccount.annotations (not .Values.serviceAccount.create) }}
- serviceAccount.annotations: no account is made; set serviceAccount.create=true, or annotate the account that serviceAccount.name names
{{- end }}
{{- end }}

{{/* As job/validators.py has them; the job itself looks at each in full. */}}
{{- define "forge-job.refuseUris" -}}
{{- $uris := splitList "," (include "forge-job.value" .Values.datasetUri) -}}
{{- range $uri := $uris }}
{{- if not (trim $uri) }}
- datasetUri: is required; give s3://bucket/key.jsonl, a prefix ending in /, or a path below a mounted volume
{{- else if not (regexMatch "^(s3://[^/]+(/.*)?|/.+)$" (trim $uri)) }}
- datasetUri: {{ trim $uri }} is neither s3://bucket/key.jsonl nor an absolute path
{{- else if not (regexMatch "(^s3://[^/]+|/|[.]jsonl|[.]jsonl[.]gz|[.]jsonl[.]zst)$" (trim $uri)) }}
- datasetUri: {{ trim $uri }} is neither a .jsonl, .jsonl.gz or .jsonl.zst file nor a prefix ending in /
{{- end }}
{{- end }}
{{- if not .Values.outputUri }}
- outputUri: is required; give s3://bucket/prefix
{{- else if not (regexMatch "^(s3://[^/]+(/.*)?|/.+)$" .Values.outputUri) }}
- outputUri: {{ .Values.outputUri }} is not s3://bucket/prefix
{{- end }}
{{- end }}

{{- define "forge-job.refuseDistributed" -}}
{{- if and (eq .Values.distributed.kind "none") (gt (int .Values.distributed.nodes) 1) }}
- distributed: nodes is {{ .Values.distributed.nodes }} with kind none; set distributed.kind=jobset
{{- end }}
{{- if ne .Values.distributed.kind "none" }}
{{- if eq (include "forge-job.value" .Values.distributed.port) (include "forge-job.value" .Values.metrics.port) }}
- distributed.port: {{ include "forge-job.value" .Values.distributed.port }} is metrics.port too; the first node listens on both, so give it another one
{{- end }}
{{- if and .Values.argo.enabled (not .Values.job.enabled) }}
- distributed: the Argo template runs one pod; submit the JobSet, or set distributed.kind=none
{{- end }}
{{- $name := include "forge-job.jobName" . }}
{{- $room := sub 63 (len (printf "-node-0-%d-abcde" (sub (int .Values.distributed.nodes) 1))) | int }}
{{- if or (gt (len $name) $room) (not (regexMatch "^[a-z]" $name)) }}
- distributed: {{ $name }} can't name {{ .Values.distributed.nodes }} pods: it has to begin with a letter and have at most {{ $room }} characters; set another runId
{{- end }}
{{- end }}
{{- end }}

{{/* A derived run's id and a JobSet's pods hold it as a label of DNS; elsewhere it may have dots. */}}
{{- define "forge-job.refuseFullname" -}}
{{- $name := include "forge-job.fullname" . -}}
{{- $told := .Values.fullnameOverride | empty | ternary (printf "the release's name %s" $name) $name -}}
{{- $derived := or .Values.runs (not .Values.runId) -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" $name) }}
- fullnameOverride: {{ $told }} names objects, and is not made of a-z, 0-9 and -, without a - at either end
{{- else if and (contains "." $name) (or $derived (ne .Values.distributed.kind "none")) }}
- fullnameOverride: {{ $told }} begins the names of {{ $derived | ternary "runs" "pods" }}, which hold no dot; set fullnameOverride={{ $name | replace "." "-" }}
{{- end }}
{{- end }}

{{- define "forge-job.refuseNames" -}}
{{- if and .Values.runId (not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" .Values.runId)) }}
- runId: {{ .Values.runId }} is not made of a-z, 0-9 and -, without a - at either end
{{- end }}
{{- if gt (len (include "forge-job.jobName" .)) 52 }}
- runId: the Job's name {{ include "forge-job.jobName" . }} has {{ len (include "forge-job.jobName" .) }} characters, 52 are allowed; shorten runId or the release's name
{{- end }}
{{- range .Values.extraEnv }}
{{- $name := .name }}
{{- if or (hasKey (include "forge-job.ownVariables" $ | fromJson) $name) (and $.Values.huggingFace.existingSecret (eq $name "HF_TOKEN")) }}
- extraEnv: {{ $name }} is set by a value of the chart already; use that value
{{- else if regexMatch "^(PET_.*|(LOCAL_|GROUP_|)RANK|(LOCAL_|)WORLD_SIZE|MASTER_(ADDR|PORT))$" $name }}
- extraEnv: {{ $name }} says which process of a run this is, and the job sets it; use gpu.count, and distributed.nodes
{{- end }}
{{- end }}
{{- end }}

{{/* The variables that values set, as the keys of a JSON object. */}}
{{- define "forge-job.ownVariables" -}}
{{- $own := dict -}}
{{- range include "forge-job.environment" (dict "root" (dict "Values" (omit .Values "extraEnv") "Chart" .Chart) "runId" "x") | fromYamlArray -}}
{{- $_ := set $own .name true -}}
{{- end -}}
{{ toJson $own }}
{{- end }}

{{- define "forge-job.refuseVolumes" -}}
{{- if and .Values.dataset.configMap .Values.dataset.volume }}
- dataset: both configMap and volume are set; keep one
{{- end }}
{{- $mounted := or .Values.dataset.configMap .Values.dataset.volume .Values.extraVolumeMounts }}
{{- if and (hasPrefix "/" (toString .Values.datasetUri)) (not $mounted) }}
- datasetUri: {{ .Values.datasetUri }} is a path, and no volume is mounted; set dataset.configMap or dataset.volume
{{- end }}
{{- if and (hasPrefix "/" .Values.outputUri) (not .Values.extraVolumeMounts) }}
- outputUri: {{ .Values.outputUri }} is a path that dies with the pod; mount a volume there with extraVolumes and extraVolumeMounts, or give s3://bucket/prefix
{{- end }}
{{- if and (hasPrefix "/" .Values.model) (not (or .Values.modelVolume.source .Values.extraVolumeMounts)) }}
- model: {{ .Values.model }} is a path, and no volume is mounted; set modelVolume.source
{{- end }}
{{- end }}

{{/* Any value is in the hash that names a run, this one too. A workflow is told its run's id. */}}
{{- define "forge-job.refuseFingerprintChange" -}}
{{- if and .Values.job.enabled .Values.settings.allowFingerprintChange (not .Values.runId) }}
- settings.allowFingerprintChange: is for a run that goes on, and without runId it makes another run, which begins anew; set {{ empty .entry | ternary "runId" "the entry's runId" }} to the id of the run that is meant, and delete its Job first
{{- end }}
{{- end }}

{{- define "forge-job.refuseGrace" -}}
{{- $seconds := include "forge-job.value" .Values.terminationGracePeriodSeconds | int }}
{{- if and $seconds (lt $seconds 15) }}
- terminationGracePeriodSeconds: {{ $seconds }} is too short to save in; give 15 or more, or 0 for what the profile needs
{{- end }}
{{- end }}

{{- define "forge-job.refuseHardware" -}}
{{- if and (not .Values.gpu.enabled) (ne (.Values.settings.engine | default "auto") "reference") }}
- gpu.enabled: only a run with settings.engine=reference can do without a GPU
{{- end }}
{{- /* NVIDIA's are known under many names, so that only those which are surely another's are refused. */}}
{{- if and .Values.gpu.enabled (regexMatch "^(amd[.]com/|gpu[.]intel[.]com/|habana[.]ai/|aws[.]amazon[.]com/neuron|google[.]com/tpu|huawei[.]com/)" .Values.gpu.resource) }}
- gpu.resource: {{ .Values.gpu.resource }} is no NVIDIA card, and the image is built for CUDA: the run would train on the CPU of the node; name the resource of an NVIDIA card
{{- end }}
{{- if and .Values.gpu.enabled (gt (int .Values.gpu.count) 1) (contains "mig-" .Values.gpu.resource) }}
- gpu.count: {{ .Values.gpu.count }} slices of a card ({{ .Values.gpu.resource }}) can't train one model, as a process sees one of them; set gpu.count=1 and name a larger slice
{{- end }}
{{- if hasKey (merge (dict) .Values.resources.limits .Values.resources.requests) .Values.gpu.resource }}
- resources: {{ .Values.gpu.resource }} is asked for by gpu.count; leave it out here
{{- end }}
{{- if and .Values.validation.preInstall .Values.serviceAccount.create }}
- validation.preInstall: the hook runs before the release's service account exists; set serviceAccount.create=false and serviceAccount.name to an account that is there
{{- end }}
{{- end }}

{{/* A quantity of the API (`500m`, `1.5Gi`, `1e3`) as a plain number; nothing for what is none. */}}
{{- define "forge-job.quantity" -}}
{{- $text := include "forge-job.value" . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $factor := get (dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0) $unit -}}
{{- $number := trimSuffix $unit $text -}}
{{- if and $factor (regexMatch "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$" $number) -}}
{{ mulf (float64 $number) $factor }}
{{- end -}}
{{- end }}

{{/* The API takes no request above its limit. Takes path, requests and limits. */}}
{{- define "forge-job.refuseAbove" -}}
{{- $all := . -}}
{{- range $name, $request := .requests }}
{{- $limit := get ($all.limits | default dict) $name }}
{{- $asked := include "forge-job.quantity" $request }}
{{- $most := include "forge-job.quantity" $limit }}
{{- if and $asked $most (gt (float64 $asked) (float64 $most)) }}
- {{ $all.path }}: the request of {{ include "forge-job.value" $request }} {{ $name }} is above the limit of {{ include "forge-job.value" $limit }}; lower {{ $all.path }}.requests or raise {{ $all.path }}.limits
{{- end }}
{{- end }}
{{- end }}

{{- define "forge-job.refuseResources" -}}
{{- include "forge-job.refuseAbove" (merge (dict "path" "resources") .Values.resources) -}}
{{- end }}

{{- define "forge-job.refuseValidation" -}}
{{- include "forge-job.refuseAbove" (merge (dict "path" "validation.resources") .Values.validation.resources) -}}
{{- end }}

{{/* Of one run. */}}
{{- define "forge-job.refuseRun" -}}
{{- list
  (include "forge-job.refuseUris" .)
  (include "forge-job.refuseNames" .)
  (include "forge-job.refuseFingerprintChange" .)
  (include "forge-job.refuseVolumes" .)
  (include "forge-job.refuseHardware" .)
  (include "forge-job.refuseResources" .)
  (include "forge-job.refuseDistributed" .) | join "" | trim -}}
{{- end }}

{{- define "forge-job.refuseArgo" -}}
{{- if and .Values.argo.enabled (not .Values.argo.serviceAccountName) (not (include "forge-job.argoOwnAccount" .)) }}
- argo.serviceAccountName: Argo's executor reports under the workflow's account, and none is named; apply k8s/argo/rbac.yaml and set argo.serviceAccountName=argo-workflow, or serviceAccount.create=true; `default` is named like any other, where it has the rights
{{- end }}
{{- if and .Values.argo.enabled (eq .Values.argo.kind "ClusterWorkflowTemplate") (include "forge-job.argoOwnAccount" .) }}
- argo.serviceAccountName: a ClusterWorkflowTemplate runs in every namespace, and the account of serviceAccount is in one; name an account that each namespace has, with the rights of k8s/argo/rbac.yaml
{{- end }}
{{- end }}

{{- define "forge-job.refuse" -}}
{{- $problems := list -}}
{{- range $part := list "Fullname" "Runs" "Grace" "Argo" "Validation" -}}
{{- $problems = append $problems (include (printf "forge-job.refuse%s" $part) $ | trim) -}}
{{- end -}}
{{- $all := dict "root" . -}}
{{- include "forge-job.contexts" $all -}}
{{- range $all.list -}}
{{- $own := include "forge-job.refuseRun" . -}}
{{- if .entry }}{{ $own = regexReplaceAll "(?m)^- " $own (printf "- runs.%s: " .entry) }}{{ end -}}
{{- $problems = concat $problems (list $own (include "forge-job.refuseCredentials" . | trim)) -}}
{{- end -}}
{{- $problems = $problems | compact | uniq | join "\n" -}}
{{- if $problems }}{{ fail (printf "the values can't be used:\n%s" $problems) }}{{ end -}}
{{- end }}
