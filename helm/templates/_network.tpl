{{/* Which addresses a network holds. */}}

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
