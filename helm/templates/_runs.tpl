{{/* The release's runs, each as a context like the chart's own: as many as `runs` has, or the one
of the values themselves. Takes a dict with root, and puts the list into it (an include can only
return text):

  $all := dict "root" $
  include "forge-job.contexts" $all
  range $all.list
*/}}
{{- define "forge-job.contexts" -}}
{{- $root := .root -}}
{{- $contexts := list -}}
{{- range $entry := $root.Values.runs -}}
{{- $values := deepCopy $root.Values -}}
{{- range $key, $own := omit $entry "name" -}}
{{- /* Not sprig's merge: it takes 0 and false for nothing. */ -}}
{{- if kindIs "map" $own -}}
{{- $merged := get $values $key -}}
{{- range $name, $value := $own }}{{ $_ := set $merged $name $value }}{{ end -}}
{{- else -}}
{{- $_ := set $values $key $own -}}
{{- end -}}
{{- end -}}
{{- $context := omit $root "Values" -}}
{{- $_ := set $context "Values" $values -}}
{{- $_ := set $context "entry" $entry.name -}}
{{- $contexts = append $contexts $context -}}
{{- else -}}
{{- $contexts = list $root -}}
{{- end -}}
{{- $_ := set . "list" $contexts -}}
{{- end }}

{{/* What the names of a run's objects begin with. */}}
{{- define "forge-job.runPrefix" -}}
{{ compact (list (include "forge-job.fullname" .) .entry) | join "-" }}
{{- end }}

{{- define "forge-job.refuseRuns" -}}
{{- if and .Values.runs .Values.runId }}
- runId: is one name for {{ len .Values.runs }} runs; leave it out, the runs are named after their entries, or give it to the one entry that goes on as that run
{{- end }}
{{- $seen := dict -}}
{{- $ids := dict -}}
{{- range .Values.runs }}
{{- if hasKey $seen .name }}
- runs: {{ .name }} is there twice; give each entry a name of its own
{{- end }}
{{- $_ := set $seen .name true }}
{{- with .runId }}
{{- if hasKey $ids . }}
- runs: the runId {{ . }} is there twice; two Jobs of one run end each other
{{- end }}
{{- $_ := set $ids . true }}
{{- end }}
{{- end }}
{{- end }}
