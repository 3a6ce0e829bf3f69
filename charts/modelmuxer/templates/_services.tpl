{{/* The map: what runs, where it listens and whom it calls. Facts of the release, which no value changes. */}}
{{- define "modelmuxer.map" -}}
router: {module: router, grpc: 50051, http: 8000, journal: true, calls: [provider-proxy, cache, accounting]}
provider-proxy: {module: provider_proxy, grpc: 50052, journal: true, calls: [accounting, simulator]}
cache: {module: cache, grpc: 50053, calls: []}
accounting: {module: accounting, grpc: 50054, calls: []}
simulator: {module: simulator, http: 8090, calls: []}
scaler: {module: scaler, grpc: 50055, calls: [router, provider-proxy, cache, accounting]}
{{- end }}

{{/* The services of this release by name, each with the defaults, its overrides, its facts, and what follows from them:
     kind, scaled (whether an autoscaler owns its replicas), most (replicas), claim (the volume of a StatefulSet). */}}
{{- define "modelmuxer.services" -}}
{{- $root := . -}}
{{- $services := dict -}}
{{- range $name, $facts := include "modelmuxer.map" . | fromYaml -}}
  {{- $wanted := true -}}
  {{- if eq $name "simulator" -}}{{- $wanted = include "modelmuxer.simulated" $root -}}{{- end -}}
  {{- if eq $name "scaler" -}}{{- $wanted = include "modelmuxer.scaler" $root -}}{{- end -}}
  {{- if $wanted -}}
    {{- $own := index $root.Values.services $name | default dict -}}
    {{- $service := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own) $facts -}}
    {{- $replicas := ternary 1 (int $service.replicas) (kindIs "invalid" $service.replicas) -}}
    {{- $scaled := and $service.autoscaling.enabled (gt $replicas 0) (ne $root.Values.autoscaling.mode "off") -}}
    {{- $one := or (has $name (list "simulator" "scaler")) (and (eq $name "accounting") (eq $root.Values.stores.ledger "sqlite")) -}}
    {{- if and $one (or (gt $replicas 1) $service.autoscaling.enabled) -}}
      {{- if eq $name "simulator" -}}
        {{- fail "services.simulator: the simulated providers are one process, because they keep one bill. Set its replicas to 1 and its autoscaling off." -}}
      {{- end -}}
      {{- if eq $name "scaler" -}}
        {{- fail "services.scaler: the scaler is one process, so that autoscalers hear one voice. Set its replicas to 1 and its autoscaling off." -}}
      {{- end -}}
      {{- fail (printf "services.accounting: a SQLite ledger has one process, and %s was asked for. Set stores.ledger to mongodb, or replicas to 1 and autoscaling.enabled to false." (ternary "autoscaling" (printf "%d replicas" $replicas) $service.autoscaling.enabled)) -}}
    {{- end -}}
    {{- $claim := dict -}}
    {{- if and (eq $name "accounting") $one -}}
      {{- $claim = $root.Values.stores.sqlite -}}
    {{- else if and $service.journal (eq $root.Values.journals.volume "claim") -}}
      {{- $claim = $root.Values.journals -}}
    {{- end -}}
    {{- $_ := set $service "replicas" $replicas -}}
    {{- $_ := set $service "scaled" $scaled -}}
    {{- $_ := set $service "most" (ternary (int $service.autoscaling.maxReplicas) $replicas $scaled) -}}
    {{- $_ := set $service "claim" $claim -}}
    {{- $_ := set $service "kind" (ternary "StatefulSet" "Deployment" (not (empty $claim))) -}}
    {{- $_ := set $services $name $service -}}
  {{- end -}}
{{- end -}}
{{- range $name, $_ := $root.Values.services -}}
  {{- if not (hasKey (include "modelmuxer.map" $root | fromYaml) $name) -}}
    {{- fail (printf "services.%s: no service of the mesh has that name." $name) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $services -}}
{{- end }}

{{/* The ports, by name, at which the mesh calls a service. */}}
{{- define "modelmuxer.faces" -}}
{{- if .grpc }}[{port: grpc}, {port: tunnel}]{{ else }}[{port: http}]{{ end -}}
{{- end }}

{{/* Not empty where simulated providers stand in for the real ones. */}}
{{- define "modelmuxer.simulated" -}}
{{- $proxy := index .Values.services "provider-proxy" | default dict -}}
{{- $given := or .Values.secrets.providers.data .Values.secrets.providers.existingSecret .Values.secrets.providers.externalSecret $proxy.envFrom -}}
{{- range $variable, $_ := merge (dict) .Values.env (.Values.defaults.env | default dict) ($proxy.env | default dict) -}}
  {{- if regexMatch "_(API_KEY|BASE_URL)$" $variable -}}{{- $given = true -}}{{- end -}}
{{- end -}}
{{- if or (eq .Values.simulate "always") (and (eq .Values.simulate "auto") (not $given)) -}}yes{{- end -}}
{{- end }}

{{/* Seconds that a pod has to stop: what shared/runner.py takes at the most. It waits, then drains tunnels and the HTTP
     face, then plain gRPC, then what other routers wait for, each within the grace; ten more let calls settle and the
     journal go to accounting. */}}
{{- define "modelmuxer.terminationSeconds" -}}
{{- add (ceil .drain.waitSeconds) (mul 3 (ceil .drain.graceSeconds)) 10 -}}
{{- end }}

{{/* Not empty where autoscalers ask the scaler: KEDA does, and HPAs do by autoscaling.externalMetrics. */}}
{{- define "modelmuxer.scaler" -}}
{{- $mode := include "modelmuxer.autoscaler" . -}}
{{- if or (eq $mode "keda") (and (eq $mode "hpa") .Values.autoscaling.externalMetrics.enabled) -}}yes{{- end -}}
{{- end }}

{{/* keda, hpa or off. */}}
{{- define "modelmuxer.autoscaler" -}}
{{- $mode := .Values.autoscaling.mode -}}
{{- if eq $mode "auto" -}}
  {{- $mode = ternary "keda" "hpa" (.Capabilities.APIVersions.Has "keda.sh/v1alpha1/ScaledObject") -}}
{{- end -}}
{{- $mode -}}
{{- end }}
