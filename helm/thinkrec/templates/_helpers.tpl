{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* Names, labels and the parts that several templates share. */ -}}

{{- define "thinkrec.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* 44 characters leave room for the longest suffix and for what Kubernetes adds to pods. A release's name may hold
       dots, a Service's may not. */ -}}
{{- define "thinkrec.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name (include "thinkrec.name" .) }}
{{- if .Values.fullnameOverride }}
{{- $name = .Values.fullnameOverride }}
{{- else if contains (include "thinkrec.name" .) .Release.Name }}
{{- $name = .Release.Name }}
{{- end }}
{{- $name | replace "." "-" | trunc 44 | trimSuffix "-" }}
{{- end }}

{{- /* Cluster-scoped names carry the release's namespace: two releases of one name must not share a ClusterRole. */ -}}
{{- define "thinkrec.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "thinkrec.fullname" .) }}
{{- end }}

{{- define "thinkrec.selectorLabels" -}}
app.kubernetes.io/name: {{ include "thinkrec.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "thinkrec.commonLabels" -}}
app.kubernetes.io/name: {{ include "thinkrec.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: thinkrec
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "thinkrec.labels" -}}
{{ include "thinkrec.commonLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "thinkrec.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "thinkrec.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "`serviceAccount.name` must name an existing ServiceAccount when `serviceAccount.create` is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "thinkrec.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "thinkrec.trainerImage" -}}
{{- default (printf "thinkrec-trainer:%s" .Chart.AppVersion) .Values.trainerImage }}
{{- end }}

{{- define "thinkrec.inferenceImage" -}}
{{- default (printf "thinkrec-inference:%s" .Chart.AppVersion) .Values.inferenceImage }}
{{- end }}

{{- /* The two halves of the restricted Pod Security Standard. */ -}}
{{- define "thinkrec.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "thinkrec.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Where pods of this chart may run; shared by the operator and by the pods of the hooks. */ -}}
{{- define "thinkrec.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .Values.nodeLossTolerationSeconds }}}
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: {{ .Values.nodeLossTolerationSeconds }}}
  {{- with .Values.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
