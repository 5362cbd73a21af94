{{/* One map over another, key by key; empty values and zeros count (sprig's merge drops them). Call with (list base over). */}}
{{- define "espalier.over" -}}
{{- $made := deepCopy (index . 0) -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $made $key)) -}}
{{- $_ := set $made $key (include "espalier.over" (list (get $made $key) $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $made $key $value -}}
{{- end -}}
{{- end -}}
{{- toJson $made -}}
{{- end }}

{{/* A pool with every option, as JSON: its own, else those of poolDefaults. Call with (list $ pool). */}}
{{- define "espalier.pool" -}}
{{- $pool := include "espalier.over" (list (index . 0).Values.poolDefaults (index . 1)) | fromJson -}}
{{- with $pool.autoscaling -}}
{{- if gt (int .min) (int .max) -}}
{{- fail (printf "pool %s: autoscaling.min is %d and max is %d: min must not be the larger one" $pool.name (int .min) (int .max)) -}}
{{- end -}}
{{- end -}}
{{- toJson $pool -}}
{{- end }}

{{/* Name of everything that belongs to a pool. Call with the pool. */}}
{{- define "espalier.poolName" -}}
espalier-pool-{{ .name }}
{{- end }}

{{/* Whose account works for which pool, as the coordinator's setting POOLS. */}}
{{- define "espalier.poolAccounts" -}}
{{- $accounts := list -}}
{{- range .Values.pools -}}
{{- $accounts = append $accounts (printf "system:serviceaccount:%s:%s=%s" $.Release.Namespace (include "espalier.poolName" .) .name) -}}
{{- end -}}
{{- join "," $accounts -}}
{{- end }}

{{/* Names of all pools, as the operator's setting POOLS. Two pools of one name are a mistake. */}}
{{- define "espalier.poolNames" -}}
{{- $names := list -}}
{{- range .Values.pools -}}
{{- if has .name $names }}{{ fail (printf "pools: two are named %s: give each a name of its own" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- join "," $names -}}
{{- end }}

{{/* "yes" where some pool's HPA reads our external metric. */}}
{{- define "espalier.hasMetricsApi" -}}
{{- $found := "" -}}
{{- range .Values.pools -}}
{{- if eq (include "espalier.pool" (list $ .) | fromJson).autoscaling.mode "external-metrics" }}{{ $found = "yes" }}{{ end -}}
{{- end -}}
{{- $found -}}
{{- end }}
