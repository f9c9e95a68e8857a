{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* A set of rules for one ServiceAccount: a ClusterRole where the whole cluster is watched, else a Role in each
       watched namespace. The name carries the release's namespace, for several releases may watch one namespace.
       Takes: root, name, rules (text), account, annotations (text, may be empty). */ -}}
{{- define "thinkrec.grant" -}}
{{- $root := .root }}
{{- $scopes := $root.Values.namespaces | default (list "") }}
{{- range $namespace := $scopes }}
{{- $name := printf "%s-%s" $root.Release.Namespace $.name }}
{{- $prefix := ternary "Cluster" "" (eq $namespace "") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}Role
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "thinkrec.labels" $root | nindent 4 }}
  {{- with $.annotations }}
  annotations: {{- . | nindent 4 }}
  {{- end }}
rules:
{{ $.rules | trim }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}RoleBinding
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "thinkrec.labels" $root | nindent 4 }}
  {{- with $.annotations }}
  annotations: {{- . | nindent 4 }}
  {{- end }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $prefix }}Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $.account }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
{{- end }}
