{{- define "cotguard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cotguard.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "cotguard.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cotguard.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "cotguard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cotguard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cotguard.labels" -}}
{{ include "cotguard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "cotguard.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cotguard.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "cotguard.image" -}}
{{- $repository := required "image.repository: write where you have pushed the image of deploy/docker" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s%s" $repository (default .Chart.AppVersion .Values.image.tag) (ternary "-cuda" "" .Values.gpu.enabled) }}
{{- end }}
{{- end }}

{{/* The configuration file: what the chart decides, and config. */}}
{{- define "cotguard.config" -}}
{{- $chart := dict "listen" "0.0.0.0:8080" "admin_listen" "0.0.0.0:9090" }}
{{- if .Values.callers.file }}
{{- $_ := set $chart "callers_file" "/etc/cotguard/callers.yaml" }}
{{- end }}
{{- if .Values.callers.keys.volume }}
{{- $_ := set $chart "keys" (printf "/var/lib/cotguard/keys/%s" .Values.callers.keys.file) }}
{{- end }}
{{- if .Values.tls.existingSecret }}
{{- $_ := set $chart "tls_cert" "/run/cotguard/tls/tls.crt" }}
{{- $_ := set $chart "tls_key" "/run/cotguard/tls/tls.key" }}
{{- end }}
{{- if .Values.tls.clientCA }}
{{- $_ := set $chart "tls_client_ca" "/run/cotguard/client-ca/ca.crt" }}
{{- end }}
{{- if .Values.admin.tlsSecret }}
{{- $_ := set $chart "admin_tls_cert" "/run/cotguard/admin-tls/tls.crt" }}
{{- $_ := set $chart "admin_tls_key" "/run/cotguard/admin-tls/tls.key" }}
{{- end }}
{{- if .Values.audit.enabled }}
{{- $_ := set $chart "audit_dir" "/var/lib/cotguard/audit" }}
{{- end }}
{{- if and .Values.model.containers (not (or .Values.config.upstream .Values.config.routes)) }}
{{- $_ := set $chart "upstream" "http://127.0.0.1:8000" }}
{{- end }}
{{- range $name, $_ := .Values.config }}
{{- if hasKey $chart $name }}
{{- fail (printf "config.%s: the chart sets it itself; see the other values" $name) }}
{{- end }}
{{- end }}
{{- $all := merge $chart .Values.config }}
{{- if not (or $all.upstream $all.routes) }}
{{- fail "config.upstream: write the model server's URL, for example http://vllm:8000, or routes" }}
{{- end }}
{{- if not (or $all.keys (.Values.callers.file | fromYaml).oidc $all.allow_anonymous) }}
{{- fail "callers: nobody is asked who he is; give callers keys or an OpenID provider (callers), or let everybody in with config.allow_anonymous: true" }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* Seconds that a drain takes at most, with what the farewell to open streams takes. */}}
{{- define "cotguard.drainSeconds" -}}
{{- add (ceil (default 0 .Values.config.drain_delay)) (ceil (default 30 .Values.config.drain_timeout)) 10 }}
{{- end }}

{{/* Seconds from the first signal to the last: beside a model, the model's containers go on for as long as a drain. */}}
{{- define "cotguard.gracePeriod" -}}
{{- $needed := int (include "cotguard.drainSeconds" .) }}
{{- if .Values.model.containers }}
{{- $needed = mul 2 $needed }}
{{- end }}
{{- $given := .Values.terminationGracePeriodSeconds }}
{{- if and (not (kindIs "invalid" $given)) (lt (int $given) (int $needed)) }}
{{- fail (printf "terminationGracePeriodSeconds: %d seconds cut the drain off; it needs %d (leave it empty for as many)" (int $given) (int $needed)) }}
{{- end }}
{{- default $needed $given }}
{{- end }}

{{- define "cotguard.probe" -}}
httpGet:
  path: {{ .path }}
  port: admin
  {{- if .context.Values.admin.tlsSecret }}
  scheme: HTTPS
  {{- end }}
{{ toYaml .probe }}
{{- end }}

{{/* The gateway's container; as a native sidecar it is restarted by itself. */}}
{{- define "cotguard.container" -}}
name: cotguard
image: {{ include "cotguard.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if .Values.model.containers }}
restartPolicy: Always
{{- end }}
args: [serve, --config, /etc/cotguard/cotguard.yaml, --workers, {{ .Values.workers | quote }}]
ports:
  - {name: http, containerPort: 8080}
  - {name: admin, containerPort: 9090}
env:
  - name: COTGUARD_ADMIN_TOKEN
    valueFrom:
      secretKeyRef:
        name: {{ required "admin.existingSecret: name a Secret with the token of the admin port (kubectl create secret generic NAME --from-literal=token=...)" .Values.admin.existingSecret }}
        key: {{ .Values.admin.key }}
  {{- range $name, $from := .Values.secretEnv }}
  - name: {{ $name }}
    valueFrom:
      secretKeyRef: {{- toYaml $from | nindent 8 }}
  {{- end }}
  {{- if .Values.audit.enabled }}
  - name: POD_NAME
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- /* The start is over before the models answer: a model server beside this container waits for it. */}}
startupProbe: {{- include "cotguard.probe" (dict "path" "/healthz" "probe" .Values.startupProbe "context" .) | nindent 2 }}
readinessProbe: {{- include "cotguard.probe" (dict "path" "/readyz" "probe" .Values.readinessProbe "context" .) | nindent 2 }}
livenessProbe: {{- include "cotguard.probe" (dict "path" "/healthz" "probe" .Values.livenessProbe "context" .) | nindent 2 }}
{{- $resources := deepCopy .Values.resources }}
{{- if .Values.gpu.enabled }}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict .Values.gpu.resource .Values.gpu.count)) }}
{{- end }}
resources: {{- toYaml $resources | nindent 2 }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  {{- /* A folder, not single files by subPath: only so do changes of the ConfigMap arrive. */}}
  - {name: config, mountPath: /etc/cotguard, readOnly: true}
  {{- if .Values.callers.keys.volume }}
  - {name: keys, mountPath: /var/lib/cotguard/keys}
  {{- end }}
  {{- if .Values.audit.enabled }}
  - {name: audit, mountPath: /var/lib/cotguard/audit, subPathExpr: $(POD_NAME)}
  {{- end }}
  {{- if .Values.tls.existingSecret }}
  - {name: tls, mountPath: /run/cotguard/tls, readOnly: true}
  {{- end }}
  {{- if .Values.tls.clientCA }}
  - {name: client-ca, mountPath: /run/cotguard/client-ca, readOnly: true}
  {{- end }}
  {{- if .Values.admin.tlsSecret }}
  - {name: admin-tls, mountPath: /run/cotguard/admin-tls, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* A container of the model server: it goes on while the gateway's streams end. */}}
{{- define "cotguard.modelContainer" -}}
{{- $lasting := dict "lifecycle" (dict "preStop" (dict "sleep" (dict "seconds" (int (include "cotguard.drainSeconds" .context))))) }}
{{- toYaml (merge (deepCopy .container) $lasting) }}
{{- end }}
