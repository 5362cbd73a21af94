{{/* Pieces of NetworkPolicies. Every edge they allow is a row of docs/reference/network.md; a test compares. */}}

{{/* Value peers (cidr, or selectors) as NetworkPolicy peers. */}}
{{- define "espalier.peers" -}}
{{- range . }}
{{- if .cidr }}
- ipBlock:
    cidr: {{ .cidr }}
{{- else }}
- {{ toYaml . | nindent 2 | trim }}
{{- end }}
{{- end }}
{{- end }}

{{/* CIDRs as NetworkPolicy peers. */}}
{{- define "espalier.blocks" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . }}
{{- end }}
{{- end }}

{{/* TCP ports. */}}
{{- define "espalier.tcp" -}}
{{- range . }}
- protocol: TCP
  port: {{ . }}
{{- end }}
{{- end }}

{{/* Pods of the release's namespace, seen from anywhere. Call with (list . component…). */}}
{{- define "espalier.programs" -}}
{{- $root := index . 0 -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $root.Release.Namespace }}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: espalier
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: {{ toJson (rest .) }}
{{- end }}

{{/* Pods that the operator makes, in any namespace. Call with the components. */}}
{{- define "espalier.jobPods" -}}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      app.kubernetes.io/managed-by: espalier
    matchExpressions:
      - key: app.kubernetes.io/component
        operator: In
        values: {{ toJson . }}
{{- end }}

{{/* Egress: names. */}}
{{- define "espalier.toDns" -}}
- to:
    {{- include "espalier.peers" .Values.networkPolicies.dns.peers | nindent 4 }}
  ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end }}

{{/* Egress: the Kubernetes API. */}}
{{- define "espalier.toApiServer" -}}
{{- with .Values.networkPolicies.apiServer -}}
- to:
    {{- include "espalier.blocks" .cidrs | nindent 4 }}
  ports:
    {{- include "espalier.tcp" .ports | nindent 4 }}
{{- end }}
{{- end }}

{{/* Egress: the coordinator's gRPC and HTTPS. */}}
{{- define "espalier.toCoordinator" -}}
- to:
    {{- if .Values.coordinator.address }}
    - ipBlock:
        cidr: {{ .Values.coordinator.address }}/32
    {{- else }}
    {{- include "espalier.programs" (list . "coordinator") | nindent 4 }}
    {{- end }}
  ports:
    {{- include "espalier.tcp" (list .Values.coordinator.grpcPort .Values.coordinator.httpPort) | nindent 4 }}
{{- end }}

{{/* Egress: model servers; pods where they are pods of Linux nodes, the Macs' addresses where they are not. The value
of `namespaces` is a namespace selector, or null for the policy's own namespace. */}}
{{- define "espalier.toModels" -}}
{{- $root := index . 0 -}}
- to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/managed-by: espalier
          app.kubernetes.io/component: mlx
      {{- if index . 1 }}
      namespaceSelector: {}
      {{- end }}
    {{- include "espalier.blocks" $root.Values.nodes.addresses | nindent 4 }}
  ports:
    {{- include "espalier.tcp" (list 8100) | nindent 4 }}
{{- end }}

{{/* Egress: model endpoints outside the cluster. */}}
{{- define "espalier.toExternalModels" -}}
{{- range .Values.networkPolicies.models }}
- to:
    - ipBlock:
        cidr: {{ .cidr }}
  ports:
    {{- include "espalier.tcp" .ports | nindent 4 }}
{{- end }}
{{- end }}

{{/* Ingress: Prometheus. Call with (list . port). */}}
{{- define "espalier.fromPrometheus" -}}
{{- with (index . 0).Values.networkPolicies.metrics.peers -}}
- from:
    {{- include "espalier.peers" . | nindent 4 }}
  ports:
    {{- include "espalier.tcp" (list (index $ 1)) | nindent 4 }}
{{- end }}
{{- end }}
