{{/* What the pods reach: which ports, and which addresses a network holds. */}}

{{/* Of a policy for the pods with these labels. Takes root, the runs whose URLs they are told of,
labels, whether the pods meet each other, and whether they report to the API server. */}}
{{- define "forge-job.networkSpec" -}}
{{- $values := .root.Values.networkPolicy -}}
podSelector:
  matchLabels:
    {{- toYaml .labels | nindent 4 }}
policyTypes:
  - Ingress
  - Egress
ingress:
  # Scrapes; nothing but metrics, health and progress answers there.
  - from:
      {{- toYaml ($values.scrapeFrom | default (list (dict "namespaceSelector" dict))) | nindent 6 }}
    ports:
      - port: {{ include "forge-job.value" .root.Values.metrics.port }}
        protocol: TCP
  {{- if .meet }}
  # The run's other pods, whose libraries choose their ports.
  - from:
      - podSelector:
          matchLabels:
            {{- toYaml .labels | nindent 12 }}
  {{- end }}
egress:
  {{- if .meet }}
  - to:
      - podSelector:
          matchLabels:
            {{- toYaml .labels | nindent 12 }}
  {{- end }}
  # Names, wherever the cluster's DNS answers (the node's own cache has a link-local address;
  # OpenShift's pods listen on 5353).
  - ports:
      {{- range $port := list 53 5353 }}
      {{- range $protocol := list "UDP" "TCP" }}
      - port: {{ $port }}
        protocol: {{ $protocol }}
      {{- end }}
      {{- end }}
  # The store, the model hub, the Pushgateway and what else a variable names by URL, and the token
  # service of a workload identity
  {{- .apiServer | default false | ternary "; the API server, to which\n  # Argo's executor reports, and which many clusters have behind their service at 6443." "." }}
  - to:
      {{- range $values.egressCidrs }}
      - ipBlock:
          cidr: {{ . }}
          {{- with include "forge-job.exceptions" (dict "cidr" . "except" $values.egressExcept) | trim }}
          except:
            {{- . | nindent 12 }}
          {{- end }}
      {{- end }}
    ports:
      {{- range include "forge-job.ports" . | fromJsonArray }}
      - port: {{ . }}
        protocol: TCP
      {{- end }}
  {{- with $values.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The port of a URL; nothing for what is none. */}}
{{- define "forge-job.port" -}}
{{- $start := regexFind "^https?://[^/?#]+" . -}}
{{- if $start -}}
{{ regexFind ":[0-9]+$" $start | trimPrefix ":" | default (hasPrefix "http:" $start | ternary "80" "443") }}
{{- end -}}
{{- end }}

{{/* 443, those of every URL among the variables of the runs, and what the values add: a URL may be
the Pushgateway's, a tracker's or a proxy's, and a port that a Secret holds isn't seen here. Takes
root and runs, and apiServer. */}}
{{- define "forge-job.ports" -}}
{{- $ports := list "443" -}}
{{- range .runs -}}
{{- range include "forge-job.environment" (dict "root" . "runId" "") | fromYamlArray -}}
{{- $ports = append $ports (include "forge-job.port" (toString .value)) -}}
{{- end -}}
{{- end -}}
{{- range .root.Values.networkPolicy.egressPorts }}{{ $ports = append $ports (include "forge-job.value" .) }}{{ end -}}
{{- if .apiServer }}{{ $ports = append $ports "6443" }}{{ end -}}
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
