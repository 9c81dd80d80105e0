{{/* Names are those of the release, so that several fit into a cluster: one per set of namespaces. */}}
{{- define "qkdnet.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* ClusterRoles have no namespace: two releases of one name must not share them. */}}
{{- define "qkdnet.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "qkdnet.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "qkdnet.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "qkdnet.labels" -}}
{{ include "qkdnet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: qkdnet
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "qkdnet.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where traces and metrics go, if anywhere. */}}
{{- define "qkdnet.endpoint" -}}
{{- if .Values.telemetry.endpoint }}{{ .Values.telemetry.endpoint }}
{{- else if .Values.collector.enabled }}http://{{ include "qkdnet.name" . }}-collector.{{ .Release.Namespace }}:4317
{{- end }}
{{- end }}

{{/* What the `restricted` profile asks of every pod. */}}
{{- define "qkdnet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "qkdnet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
