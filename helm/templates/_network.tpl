{{/* Which ports the pods reach, and which addresses a network holds. */}}

{{/* The port of a URL; nothing for what is none. */}}
{{- define "forge-job.port" -}}
{{- $start := regexFind "^https?://[^/?#]+" . -}}
{{- if $start -}}
{{ regexFind ":[0-9]+$" $start | trimPrefix ":" | default (hasPrefix "http:" $start | ternary "80" "443") }}
{{- end -}}
{{- end }}

{{/* 443, those of every URL among the variables of the runs, and what the values add: a URL may be
the Pushgateway's, a tracker's or a proxy's, and a port that a Secret holds isn't seen here. */}}
{{- define "forge-job.ports" -}}
{{- $ports := list "443" -}}
{{- $all := dict "root" . -}}
{{- include "forge-job.contexts" $all -}}
{{- range $all.list -}}
{{- range include "forge-job.environment" (dict "root" . "runId" "") | fromYamlArray -}}
{{- $ports = append $ports (include "forge-job.port" (toString .value)) -}}
{{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.egressPorts }}{{ $ports = append $ports (include "forge-job.value" .) }}{{ end -}}
{{- if .Values.argo.enabled }}{{ $ports = append $ports "6443" }}{{ end -}}
{{ compact $ports | uniq | toJson }}
{{- end }}

{{/* A network as its family and the bits that its addresses share: `10.0.0.0/8` → `4 00001010`. */}}
{{- define "forge-job.network" -}}
{{- $parts := splitList "/" . -}}
{{- $bits := "" -}}
{{- if contains ":" . -}}
{{- $halves := first $parts | splitList "::" -}}
{{- $groups := first $halves | splitList ":" | compact -}}
{{- $last := rest $halves | join "" | splitList ":" | compact -}}
{{- $zeros := add (len $groups) (len $last) | sub 8 | int -}}
{{- range concat $groups (repeat $zeros "0 " | splitList " " | compact) $last -}}
{{- $bits = printf "%s%016b" $bits (printf "0x%s" . | int) -}}
{{- end -}}
{{- else -}}
{{- range first $parts | splitList "." }}{{ $bits = printf "%s%08b" $bits (int .) }}{{ end -}}
{{- end -}}
{{ printf "%s %s" (contains ":" . | ternary "6" "4") (trunc (last $parts | int) $bits) }}
{{- end }}

{{/* Those of `except` that are a part of `cidr`: the API server refuses any other. */}}
{{- define "forge-job.exceptions" -}}
{{- $network := include "forge-job.network" .cidr -}}
{{- range .except -}}
{{- $own := include "forge-job.network" . -}}
{{- if and (hasPrefix $network $own) (ne $network $own) }}
- {{ . }}
{{- end -}}
{{- end -}}
{{- end }}
