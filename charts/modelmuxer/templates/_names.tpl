{{- define "modelmuxer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* 40 characters at the most: names of services and of what they own stand behind it. */}}
{{- define "modelmuxer.fullname" -}}
{{- if .Values.fullnameOverride -}}
  {{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "modelmuxer.name" .) .Release.Name -}}
  {{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
  {{- printf "%s-%s" .Release.Name (include "modelmuxer.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels by which the objects of a component are selected: (dict "root" $ "component" "router"). */}}
{{- define "modelmuxer.selector" -}}
app.kubernetes.io/name: {{ include "modelmuxer.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "modelmuxer.labels" -}}
{{ include "modelmuxer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: modelmuxer
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "modelmuxer.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "modelmuxer.serviceAccount" -}}
{{- if .service.serviceAccount.create -}}
{{ include "modelmuxer.fullname" .root }}-{{ .component }}
{{- else -}}
{{ .service.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{/* The Secret of auth, providers or stores: (dict "root" $ "secret" "auth"). */}}
{{- define "modelmuxer.secret" -}}
{{- (index .root.Values.secrets .secret).existingSecret | default (printf "%s-%s" (include "modelmuxer.fullname" .root) .secret) -}}
{{- end }}
