{{/*
The policies of a namespace that has jobs, as a list of {name, spec}: the operator makes them beside the pods that it makes,
as only it knows where. Selectors without a namespace mean that namespace.
*/}}
{{- define "espalier.jobPolicies" -}}
# Nothing that the operator makes sends or receives anything, but for what the policies below allow.
- name: espalier-default-deny
  spec:
    podSelector:
      matchLabels:
        app.kubernetes.io/managed-by: espalier
    policyTypes: [Ingress, Egress]
- name: espalier-names
  spec:
    podSelector:
      matchLabels:
        app.kubernetes.io/managed-by: espalier
    policyTypes: [Egress]
    egress:
      {{- include "espalier.toDns" . | nindent 6 }}
- name: espalier-worker
  spec:
    podSelector:
      matchLabels:
        app.kubernetes.io/managed-by: espalier
        app.kubernetes.io/component: worker
    policyTypes: [Ingress, Egress]
    ingress:
      {{- include "espalier.fromPrometheus" (list . 8082) | nindent 6 }}
    egress:
      {{- include "espalier.toCoordinator" . | nindent 6 }}
      {{- include "espalier.toModels" (list . false) | nindent 6 }}
      {{- include "espalier.toExternalModels" . | nindent 6 }}
- name: espalier-sandbox
  spec:
    podSelector:
      matchLabels:
        app.kubernetes.io/managed-by: espalier
        app.kubernetes.io/component: sandbox
    policyTypes: [Ingress, Egress]
    egress:
      {{- include "espalier.toCoordinator" . | nindent 6 }}
- name: espalier-mlx
  spec:
    podSelector:
      matchLabels:
        app.kubernetes.io/managed-by: espalier
        app.kubernetes.io/component: mlx
    policyTypes: [Ingress, Egress]
    ingress:
      - from:
          - podSelector:
              matchLabels:
                app.kubernetes.io/managed-by: espalier
                app.kubernetes.io/component: worker
          # Pods of yours that call a ModelServer carry this label.
          - podSelector:
              matchLabels:
                espalier.dev/model-client: "true"
          {{- include "espalier.programs" (list . "operator" "worker") | nindent 10 }}
          {{- include "espalier.peers" .Values.networkPolicies.metrics.peers | nindent 10 }}
        ports:
          {{- include "espalier.tcp" (list 8100) | nindent 10 }}
{{- end }}
