{{/* The pod of a service: (dict "root" $ "component" name "service" $service). One for Deployments and StatefulSets. */}}
{{- define "modelmuxer.pod" -}}
{{- $root := .root -}}
{{- $service := .service -}}
{{- $selector := include "modelmuxer.selector" . -}}
metadata:
  labels:
    {{- $selector | nindent 4 }}
    app.kubernetes.io/part-of: modelmuxer
    {{- with $service.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- /* Keys and addresses are read at start: pods follow a change of them. The catalogue is watched, and is not here. */}}
    checksum/secrets: {{ toJson $root.Values.secrets | sha256sum }}
    {{- with $service.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "modelmuxer.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "modelmuxer.terminationSeconds" $service }}
  securityContext:
    {{- toYaml $service.podSecurityContext | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "modelmuxer.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ printf "services.%s" $service.module }}{{ if not $service.grpc }}, --host, "0.0.0.0"{{ end }}]
      env:
        {{- include "modelmuxer.env" . | trim | nindent 8 }}
      {{- $from := concat (list) $service.envFrom }}
      {{- if and (eq .component "provider-proxy") (or $root.Values.secrets.providers.data $root.Values.secrets.providers.existingSecret $root.Values.secrets.providers.externalSecret) }}
      {{- $from = append $from (dict "secretRef" (dict "name" (include "modelmuxer.secret" (dict "root" $root "secret" "providers")))) }}
      {{- end }}
      {{- with $from }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- if $service.grpc }}
        - {name: grpc, containerPort: {{ $service.grpc }}}
        - {name: metrics, containerPort: {{ add $service.grpc 1000 }}}
        - {name: tunnel, containerPort: {{ add $service.grpc 2000 }}}
        {{- end }}
        {{- if and (eq .component "scaler") $root.Values.autoscaling.externalMetrics.enabled }}
        - {name: external, containerPort: 8443}
        {{- end }}
        {{- if $service.http }}
        - {name: http, containerPort: {{ $service.http }}}
        {{- end }}
      {{- if $service.grpc }}
      {{- /* The process's own name for "alive": what it depends on never kills it. */}}
      startupProbe:
        grpc: {port: {{ $service.grpc }}, service: ""}
        periodSeconds: 1
        failureThreshold: 90
      livenessProbe:
        grpc: {port: {{ $service.grpc }}, service: ""}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        grpc: {port: {{ $service.grpc }}, service: readiness}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- else }}
      startupProbe:
        httpGet: {port: http, path: /healthz}
        periodSeconds: 1
        failureThreshold: 90
      livenessProbe:
        httpGet: {port: http, path: /healthz}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {port: http, path: /healthz}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      {{- end }}
      {{- with $service.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- toYaml $service.securityContext | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: home, mountPath: /var/lib/modelmuxer}
        {{- if has .component (list "router" "provider-proxy") }}
        - {name: catalogue, mountPath: /etc/modelmuxer, readOnly: true}
        {{- end }}
        {{- if eq .component "accounting" }}
        - {name: admin-key, mountPath: /var/lib/modelmuxer/key, subPath: admin-key, readOnly: true}
        {{- end }}
        {{- with $service.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- if eq $service.kind "Deployment" }}
    - name: home
      emptyDir: {sizeLimit: {{ $root.Values.journals.size }}}
    {{- end }}
    {{- if has .component (list "router" "provider-proxy") }}
    - name: catalogue
      configMap: {name: {{ $root.Values.catalogue.existingConfigMap | default (printf "%s-catalogue" (include "modelmuxer.fullname" $root)) }}}
    {{- end }}
    {{- if eq .component "accounting" }}
    - name: admin-key
      secret:
        secretName: {{ include "modelmuxer.secret" (dict "root" $root "secret" "auth") }}
        defaultMode: 0440
        items: [{key: admin-key, path: admin-key}]
    {{- end }}
    {{- with $service.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $service.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      labelSelector:
        matchLabels:
          {{- $selector | nindent 10 }}
      {{- if eq $service.kind "Deployment" }}
      matchLabelKeys: [pod-template-hash]
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with $service.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $service.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $service.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $service.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end }}

{{/* Its environment: the mesh's own, then yours, so that yours wins. */}}
{{- define "modelmuxer.env" -}}
{{- $root := .root -}}
{{- $service := .service -}}
{{- $full := include "modelmuxer.fullname" $root -}}
{{- $auth := include "modelmuxer.secret" (dict "root" $root "secret" "auth") -}}
{{- $stores := include "modelmuxer.secret" (dict "root" $root "secret" "stores") -}}
{{- $env := dict "MODELMUXER_HOME" "/var/lib/modelmuxer" -}}
{{- if $service.grpc -}}
  {{- $_ := set $env "MODELMUXER_HOST" "0.0.0.0" -}}
  {{- $_ := set $env "MODELMUXER_LOG_FORMAT" "json" -}}
  {{- $_ := set $env (printf "MODELMUXER_%s_TUNNEL_PORT" (upper $service.module)) (add $service.grpc 2000 | toString) -}}
  {{- $_ := set $env "MODELMUXER_DRAIN_WAIT_S" ($service.drain.waitSeconds | toString) -}}
  {{- $_ := set $env "MODELMUXER_GRACE_S" ($service.drain.graceSeconds | toString) -}}
  {{- range $name, $facts := include "modelmuxer.map" $root | fromYaml -}}
    {{- if and (has $name $service.calls) $facts.grpc -}}
      {{- $host := printf "%s-%s%s" $full $name (ternary "-replicas" "" (eq $.component "scaler")) -}}
      {{- $_ := set $env (printf "MODELMUXER_%s_ADDRESS" (upper $facts.module)) (printf "%s:%v" $host $facts.grpc) -}}
    {{- end -}}
  {{- end -}}
  {{- with $root.Values.telemetry.otlpEndpoint -}}
    {{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
    {{- $_ := set $env "OTEL_EXPORTER_OTLP_PROTOCOL" $root.Values.telemetry.otlpProtocol -}}
  {{- end -}}
{{- end -}}
{{- if has .component (list "router" "provider-proxy") -}}
  {{- $_ := set $env "MODELMUXER_CONFIG" "/etc/modelmuxer/catalogue.yaml" -}}
  {{- if include "modelmuxer.simulated" $root -}}
    {{- $_ := set $env "MODELMUXER_SIMULATOR_URL" (printf "http://%s-simulator:8090" $full) -}}
  {{- end -}}
{{- end -}}
{{- if and (eq .component "scaler") $root.Values.autoscaling.externalMetrics.enabled -}}
  {{- $_ := set $env "MODELMUXER_EXTERNAL_METRICS_PORT" "8443" -}}
{{- end -}}
{{- if eq .component "cache" -}}{{- $_ := set $env "MODELMUXER_CACHE_STORE" $root.Values.stores.cache -}}{{- end -}}
{{- if eq .component "accounting" -}}{{- $_ := set $env "MODELMUXER_LEDGER_STORE" $root.Values.stores.ledger -}}{{- end -}}
{{- $env = merge (dict) ($service.env | default dict) $root.Values.env $env -}}
{{- range $variable, $value := $env -}}
- {name: {{ $variable }}, value: {{ $value | quote }}}
{{ end -}}
{{- if $service.grpc -}}
- name: MODELMUXER_REPLICA
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: MODELMUXER_MESH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ $auth }}, key: mesh-token}}
{{- end }}
{{- if and (eq .component "cache") (eq $root.Values.stores.cache "redis") }}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $stores }}, key: REDIS_URL}}
{{- end }}
{{- if and (eq .component "accounting") (eq $root.Values.stores.ledger "mongodb") }}
- name: MONGODB_URL
  valueFrom: {secretKeyRef: {name: {{ $stores }}, key: MONGODB_URL}}
{{- end }}
{{- end }}
