{{/* What the names of this release's Jobs match, as a regular expression within a string of PromQL.
A Job that an upgrade left alone has another hash or profile than now; no entry at all, where `runs`
is new. One that was called by a runId or after an entry which the values hold no more isn't known: a
release `team` can't tell it from those of a release `team-weather`. */}}
{{- define "forge-job.jobNames" -}}
{{- $entries := list -}}
{{- range .Values.runs }}{{ $entries = append $entries (regexQuoteMeta .name) }}{{ end -}}
{{- $begin := include "forge-job.fullname" . | regexQuoteMeta -}}
{{- with $entries }}{{ $begin = printf "%s(-(%s))?" $begin (join "|" .) }}{{ end -}}
{{- $names := list (printf "%s-(fast-dev|balanced|max-quality)-[0-9a-f]{8}" $begin) -}}
{{- if .Values.runId }}{{ $names = append $names (include "forge-job.jobName" . | regexQuoteMeta) }}{{ end -}}
{{- /* Of a JobSet's or a TrainJob's Job. */ -}}
{{ printf "(%s)(-node-0)?" (join "|" $names) | replace "\\" "\\\\" }}
{{- end }}
