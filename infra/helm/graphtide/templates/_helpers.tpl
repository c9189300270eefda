{{- define "graphtide.name" -}}
{{- if contains "graphtide" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-graphtide" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end -}}

{{/* Labels that choose pods; takes a list of the root and the component. */}}
{{- define "graphtide.selector" -}}
app.kubernetes.io/name: graphtide
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "graphtide.labels" -}}
{{ include "graphtide.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end -}}

{{/* What every pod has in common; the argument is the root and whether it computes on the GPU. */}}
{{- define "graphtide.pod" -}}
{{- $root := index . 0 }}{{ $gpu := and (index . 1) $root.Values.gpu.enabled -}}
serviceAccountName: {{ include "graphtide.name" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
nodeSelector: {{ toJson (ternary (merge (dict) $root.Values.nodeSelector $root.Values.gpu.nodeSelector) $root.Values.nodeSelector $gpu) }}
tolerations: {{ toJson (ternary (concat $root.Values.tolerations $root.Values.gpu.tolerations) $root.Values.tolerations $gpu) }}
affinity: {{ toJson $root.Values.affinity }}
{{- end -}}

{{- define "graphtide.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { {{ include "graphtide.selector" . | replace "\n" ", " }} } }
{{- end -}}

{{/* What every container has in common; the argument is the root and whether it computes on the GPU. */}}
{{- define "graphtide.container" -}}
{{- $root := index . 0 }}{{ $gpu := and (index . 1) $root.Values.gpu.enabled -}}
image: "{{ $root.Values.image.repository }}:{{ ternary $root.Values.gpu.tag $root.Values.image.tag $gpu }}"
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
envFrom:
  - configMapRef: { name: {{ include "graphtide.name" $root }} }
{{- end -}}

{{/* Settings that are secrets, by reference. */}}
{{- define "graphtide.secrets" -}}
{{- with .Values.store.passwordSecret }}
- name: PGPASSWORD
  valueFrom: { secretKeyRef: { name: {{ .name }}, key: {{ .key }} } }
{{- end }}
{{- end -}}

{{/* The volumes of a pod whose books are in PostgreSQL, and where they are mounted. */}}
{{- define "graphtide.sharedVolumes" -}}
volumes:
  - { name: data, emptyDir: { sizeLimit: 1Gi } }
  - { name: tmp, emptyDir: { sizeLimit: 2Gi } }
  {{- with .Values.service.database.modelsClaim }}
  - { name: models, persistentVolumeClaim: { claimName: {{ . }}, readOnly: true } }
  {{- end }}
{{- end -}}

{{- define "graphtide.sharedMounts" -}}
volumeMounts:
  - { name: data, mountPath: /data }
  - { name: tmp, mountPath: /tmp }
  {{- if .Values.service.database.modelsClaim }}
  - { name: models, mountPath: /data/models, readOnly: true }
  {{- end }}
{{- end -}}

{{/* Of what listens nowhere: whether it has a process that works. It replaces those that die, and ends where it cannot go on. */}}
{{- define "graphtide.workProbes" -}}
startupProbe:
  exec: { command: [/bin/sh, -c, "grep -qa '{{ . }}' /proc/[0-9]*/cmdline"] }
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  exec: { command: [/bin/sh, -c, "grep -qa '{{ . }}' /proc/[0-9]*/cmdline"] }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* The budget of a workload; takes the root and the component. */}}
{{- define "graphtide.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "graphtide.name" (index . 0) }}-{{ index . 1 }}
  labels: {{- include "graphtide.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "graphtide.selector" . | nindent 6 }}
{{- end -}}

{{/* The password of the shared cache, for what answers requests. */}}
{{- define "graphtide.cachePassword" -}}
{{- if .Values.cache.url }}{{ with .Values.cache.passwordSecret }}
- name: GRAPHTIDE_CACHE__REDIS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ .name }}, key: {{ .key }} } }
{{- end }}{{ end }}
{{- end -}}

{{- define "graphtide.resources" -}}
{{- $root := index . 0 }}{{ $resources := deepCopy (index . 1) -}}
{{- if $root.Values.gpu.enabled }}{{ $_ := set $resources.limits "nvidia.com/gpu" $root.Values.gpu.count }}{{ end -}}
resources: {{ toJson $resources }}
{{- end -}}

{{- define "graphtide.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: http }
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: http }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: { path: /readyz, port: http }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}
