{{/* What several templates need. A part of the release is called by its component: api, stream, … */}}

{{/* The release's name where it says what is installed, else with the chart's. Short enough for a suffix. */}}
{{- define "clickstream.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of a component: include "clickstream.selector" (list $ "api"). */}}
{{- define "clickstream.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of what belongs to a component. */}}
{{- define "clickstream.labels" -}}
{{ include "clickstream.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- define "clickstream.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "clickstream.secretName" -}}
{{ .Values.secrets.existingSecret | default (include "clickstream.fullname" .) }}
{{- end -}}

{{- define "clickstream.claimName" -}}
{{ .Values.storage.existingClaim | default (include "clickstream.fullname" .) }}
{{- end -}}

{{/* "true" where the lake is on a claim, nothing where it is on S3. */}}
{{- define "clickstream.usesClaim" -}}
{{- if not .Values.storage.lakePath }}true{{ end -}}
{{- end -}}

{{- define "clickstream.sparkMaster" -}}
{{- if .Values.spark.standalone.enabled -}}
spark://{{ include "clickstream.fullname" . }}-spark-master:7077
{{- else -}}
{{ .Values.spark.master }}
{{- end -}}
{{- end -}}

{{/* "true" where executors are pods that Spark asks Kubernetes for. */}}
{{- define "clickstream.sparkOnKubernetes" -}}
{{- if hasPrefix "k8s://" (include "clickstream.sparkMaster" .) }}true{{ end -}}
{{- end -}}

{{/* The settings that all processes share, but for passwords: environment variables as a map of texts. */}}
{{- define "clickstream.settings" -}}
{{- $name := include "clickstream.fullname" . -}}
KAFKA_BOOTSTRAP_SERVERS: {{ .Values.trial.kafka.enabled | ternary (printf "%s-kafka:9092" $name) .Values.kafka.bootstrapServers | quote }}
KAFKA_TOPIC: {{ .Values.kafka.topic | quote }}
POSTGRES_HOST: {{ .Values.trial.postgresql.enabled | ternary (printf "%s-postgresql" $name) .Values.postgresql.host | quote }}
POSTGRES_PORT: {{ .Values.postgresql.port | toJson | quote }}
POSTGRES_USER: {{ .Values.postgresql.user | quote }}
POSTGRES_DB: {{ .Values.postgresql.database | quote }}
# Read by dagster.yaml.
DAGSTER_POSTGRES_DB: {{ .Values.postgresql.dagsterDatabase | quote }}
DAGSTER_HOME: /opt/dagster
ELASTICSEARCH_URL: {{ .Values.trial.elasticsearch.enabled | ternary (printf "http://%s-elasticsearch:9200" $name) .Values.elasticsearch.url | quote }}
# A pod's own: what DuckDB spills.
CLICKSTREAM_HOME: /var/lib/clickstream
LAKE_PATH: {{ .Values.storage.lakePath | default "/shared/lake" | quote }}
CHECKPOINT_PATH: {{ .Values.storage.checkpointPath | default "/shared/checkpoints" | quote }}
{{- with include "clickstream.sparkMaster" . }}
SPARK_MASTER: {{ . | quote }}
{{- end }}
{{- with .Values.spark.remote }}
SPARK_REMOTE: {{ . | quote }}
{{- end }}
API_HOST: 0.0.0.0
API_PORT: "8000"
{{- range $variable, $value := .Values.settings }}
{{/* Numbers are floats to Helm: as JSON 5000000 stays what it is, printed it would be 5e+06. */ -}}
{{ $variable }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- range $variable, $value := .Values.extraEnv }}
{{ $variable }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* What depends on the pod, as a list of variables: for runs and for the stream, which compute. */}}
{{- define "clickstream.computeEnv" -}}
{{ include "clickstream.withheldEnv" . | trim }}
{{ $master := include "clickstream.sparkMaster" . -}}
{{- $config := .Values.spark.config -}}
{{- if not (hasKey .Values.settings "DUCKDB_THREADS") }}
# Python counts the node's cores, and would start as many processes, each with memory of its own.
- name: DUCKDB_THREADS
  valueFrom:
    resourceFieldRef:
      resource: limits.cpu
{{ end -}}
{{- if include "clickstream.sparkOnKubernetes" . -}}
{{- $config = mergeOverwrite (include "clickstream.sparkKubernetesConfig" . | fromYaml) $config -}}
# Named in SPARK_CONFIG, so that executors end with the pod that started them.
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{ end -}}
{{- if or (hasPrefix "k8s://" $master) (hasPrefix "spark://" $master) -}}
# Executors call back, and a pod has no other name.
- name: SPARK_DRIVER_HOST
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{ end -}}
{{- if $config -}}
- name: SPARK_CONFIG
  value: {{ $config | toJson | quote }}
{{ end -}}
{{- end -}}

{{- define "clickstream.sparkKubernetesConfig" -}}
spark.executor.instances: {{ .Values.spark.executors.instances | toJson | quote }}
spark.executor.cores: {{ .Values.spark.executors.cores | toJson | quote }}
# What Spark leaves for Python beside the heap when it starts a Python program itself; it would be a tenth.
spark.kubernetes.memoryOverheadFactor: "0.4"
spark.kubernetes.namespace: {{ .Release.Namespace | quote }}
spark.kubernetes.container.image: {{ include "clickstream.image" . | quote }}
spark.kubernetes.container.image.pullPolicy: {{ .Values.image.pullPolicy }}
spark.kubernetes.driver.pod.name: $(POD_NAME)
spark.kubernetes.executor.podTemplateFile: /etc/spark-executor/pod.yaml
spark.kubernetes.executor.podTemplateContainerName: executor
# No ConfigMap, claim or service is made for executors, so nobody needs a right to make and delete such.
spark.kubernetes.executor.disableConfigMap: "true"
spark.kubernetes.driver.ownPersistentVolumeClaim: "false"
spark.kubernetes.driver.service.deleteOnTermination: "false"
{{- end -}}

{{/* What every pod's spec has in common. The image's user is 10001; a server's own is given: (list $ 999). */}}
{{- define "clickstream.pod" -}}
{{- $root := index . 0 -}}
{{- $user := index . 1 -}}
# Variables made up from services' names would be taken for settings: SPARK_MASTER_PORT is one.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  # A large lake would else be gone through at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations of a pod: it is replaced when its configuration changes. */}}
{{- define "clickstream.podAnnotations" -}}
checksum/config: {{ include (print .Template.BasePath "/config.yaml") . | sha256sum }}
checksum/secret: {{ include (print .Template.BasePath "/secret.yaml") . | sha256sum }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "clickstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{/* What every container of our image has in common. */}}
{{- define "clickstream.container" -}}
image: {{ include "clickstream.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# Spark writes into the folder that it is started in.
workingDir: /tmp
securityContext:
  {{- include "clickstream.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- define "clickstream.envFrom" -}}
- configMapRef:
    name: {{ include "clickstream.fullname" . }}
{{- end -}}

{{/* For what does the work itself: all that is in the Secret, whatever it is, but for "clickstream.withheldEnv". */}}
{{- define "clickstream.envFromWithSecret" -}}
{{ include "clickstream.envFrom" . }}
- secretRef:
    name: {{ include "clickstream.secretName" . }}
{{- end -}}

{{/* What else comes of the Secret is emptied by these: passwords that others have, and no run is to. */}}
{{- define "clickstream.withheldEnv" -}}
{{- $settings := .Values.settings -}}
{{- $others := list "POSTGRES_API_PASSWORD" "WEBSERVER_PASSWORD" -}}
{{- if and $settings.POSTGRES_PIPELINE_USER $settings.DAGSTER_POSTGRES_USER -}}
{{- $others = append $others "POSTGRES_PASSWORD" -}}
{{- end -}}
{{- range $others }}
- name: {{ . }}
  value: ""
{{- end }}
{{- end -}}

{{/*
Of the Secret, what another component uses, as a list of variables: include "clickstream.secretEnv" (list $ "api").
The webhook's key of alerts is for runs and for the stream alone; the code server tells people of incidents.
*/}}
{{- define "clickstream.secretEnv" -}}
{{- $root := index . 0 -}}
{{- $lake := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" -}}
{{- /* Whoever reads the settings reads how to log in to the brokers, and refuses a user without a password. */ -}}
{{- $kafka := get $root.Values.settings "KAFKA_USERNAME" | empty | ternary list (list "KAFKA_PASSWORD") -}}
{{- /* What each connects as: a role of its own, where the settings name one, and else the owner. */ -}}
{{- $api := empty $root.Values.settings.POSTGRES_API_USER | ternary "POSTGRES_PASSWORD" "POSTGRES_API_PASSWORD" -}}
{{- $pipeline := empty $root.Values.settings.POSTGRES_PIPELINE_USER | ternary "POSTGRES_PASSWORD" "POSTGRES_PIPELINE_PASSWORD" -}}
{{- $dagster := empty $root.Values.settings.DAGSTER_POSTGRES_USER | ternary "POSTGRES_PASSWORD" "DAGSTER_POSTGRES_PASSWORD" -}}
{{- $keys := dict
  "backup" (concat (list $pipeline $dagster | uniq) $kafka $lake)
  "api" (concat (list $api "ELASTICSEARCH_API_KEY" "API_KEYS" "SESSION_SECRET") $kafka)
  "code-server" (concat (list $pipeline $dagster | uniq) (list "SMTP_PASSWORD" "INCIDENT_WEBHOOK_URLS" "INCIDENT_WEBHOOK_SECRET") $kafka $lake)
  "daemon" (list $dagster)
  "simulator" $kafka
  "spark-executor" $lake
  "spark-worker" $lake
  "webserver" (list $dagster)
-}}
{{- range $key := get $keys (index . 1) }}
{{- /* What is in a file is not in a variable. */ -}}
{{- if not (hasKey $root.Values.settings (printf "%s_FILE" $key)) }}
- name: {{ $key }}
  valueFrom:
    secretKeyRef:
      name: {{ include "clickstream.secretName" $root }}
      key: {{ $key }}
      optional: {{ not (has $key (list $api $pipeline $dagster)) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What a process writes beside the lake, on a root that is read-only. */}}
{{- define "clickstream.scratchMounts" -}}
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /var/lib/clickstream
- name: dagster-storage
  mountPath: /opt/dagster/storage
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "clickstream.scratchVolumes" -}}
- name: tmp
  emptyDir: {}
- name: home
  emptyDir: {}
- name: dagster-storage
  emptyDir: {}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The same, and the lake. */}}
{{- define "clickstream.mounts" -}}
{{ include "clickstream.scratchMounts" . }}
{{- if include "clickstream.usesClaim" . }}
- name: shared
  mountPath: /shared
{{- end }}
{{- end -}}

{{- define "clickstream.volumes" -}}
{{ include "clickstream.scratchVolumes" . }}
{{- if include "clickstream.usesClaim" . }}
- name: shared
  persistentVolumeClaim:
    claimName: {{ include "clickstream.claimName" . }}
{{- end }}
{{- end -}}

{{/* dagster.yaml and workspace.yaml. Runs do without: the launcher tells them of the instance in their arguments. */}}
{{- define "clickstream.dagsterMounts" -}}
- name: dagster
  mountPath: /opt/dagster/dagster.yaml
  subPath: dagster.yaml
- name: dagster
  mountPath: /opt/dagster/workspace.yaml
  subPath: workspace.yaml
{{- end -}}

{{- define "clickstream.dagsterVolumes" -}}
- name: dagster
  configMap:
    name: {{ include "clickstream.fullname" . }}-dagster
{{- end -}}

{{/* The same as "clickstream.mounts", and the form of executors' pods, for those that ask Kubernetes for them. */}}
{{- define "clickstream.driverMounts" -}}
{{ include "clickstream.mounts" . }}
{{- if include "clickstream.sparkOnKubernetes" . }}
- name: spark-executor
  mountPath: /etc/spark-executor
{{- end }}
{{- end -}}

{{- define "clickstream.driverVolumes" -}}
{{ include "clickstream.volumes" . }}
{{- if include "clickstream.sparkOnKubernetes" . }}
- name: spark-executor
  configMap:
    name: {{ include "clickstream.fullname" . }}-spark-executor
{{- end }}
{{- end -}}
