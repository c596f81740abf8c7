{{/* What the names of this release's Jobs match, as a regular expression within a string of PromQL.
Any profile and hash, as Jobs of earlier upgrades go on; and none of the entries, as `runs` may be
newer than they are. Those of an entry or a runId that the values hold no more are left out: `team`
can't tell them from the Jobs of a release `team-weather`. */}}
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
