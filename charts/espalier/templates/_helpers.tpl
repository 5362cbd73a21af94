{{/* Labels of every object. Call with (list . "component"); the component is the program's word. */}}
{{- define "espalier.labels" -}}
{{- $root := index . 0 -}}
{{ include "espalier.selector" . }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: espalier
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* What selects a program's pods; never changes, as selectors are immutable. */}}
{{- define "espalier.selector" -}}
app.kubernetes.io/name: espalier
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The image of a program. */}}
{{- define "espalier.image" -}}
{{- $root := index . 0 -}}
{{- $registry := $root.Values.images.registry -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end -}}
espalier-{{ index . 1 }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* Pod Security "restricted", the pod's half. 65532 is the unprivileged user of our images. */}}
{{- define "espalier.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Pod Security "restricted", the container's half. */}}
{{- define "espalier.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Pods of one program on different nodes, where there are several of both. */}}
{{- define "espalier.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "espalier.selector" . | nindent 8 }}
{{- end }}

{{/* "yes" where some pool scales by KEDA. */}}
{{- define "espalier.usesKeda" -}}
{{- range .Values.pools -}}
{{- if eq (include "espalier.pool" (list $ .) | fromJson).autoscaling.mode "keda" }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/* Requests equal limits: what the scheduler promises is what the program gets. */}}
{{- define "espalier.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
limits:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
{{- end }}

{{/* The certificate name of the coordinator: clients verify it whatever address they dial. */}}
{{- define "espalier.coordinatorName" -}}
espalier-coordinator.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The host that clients of the coordinator dial. */}}
{{- define "espalier.coordinatorHost" -}}
{{ .Values.coordinator.address | default (include "espalier.coordinatorName" .) }}
{{- end }}

{{/* The user name of the operator's service account. */}}
{{- define "espalier.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:espalier-operator
{{- end }}

{{/*
The volume that automounting would give: a token of this pod's service account for the Kubernetes API, the cluster's CA and the
namespace. Only the two programs that talk to the API server mount it, at the standard path.
*/}}
{{- define "espalier.apiAccessVolume" -}}
- name: kubernetes-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3607
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end }}

{{- define "espalier.apiAccessMount" -}}
- name: kubernetes-api
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}
