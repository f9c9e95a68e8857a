{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /* The alerts, by group: critical only where users notice or soon will. Braces inside backquotes are for Prometheus. */ -}}
{{- define "thinkrec.alerts" -}}
{{- $values := .Values.metrics.prometheusRule -}}
models:
  - name: ThinkRecModelUnavailable
    severity: critical
    for: 10m
    expr: thinkrec_model_condition{type="Available",status="False"} == 1 and on (namespace, name) thinkrec_model_age_seconds
    summary: {{ `Model {{ $labels.namespace }}/{{ $labels.name }} was trained but no revision answers requests.` | quote }}
  - name: ThinkRecModelStalled
    severity: warning
    for: 5m
    expr: thinkrec_model_condition{type="Stalled",status="True"} == 1
    summary: {{ `Model {{ $labels.namespace }}/{{ $labels.name }} cannot go on until something is changed.` | quote }}
  - name: ThinkRecModelStale
    severity: warning
    for: 15m
    expr: thinkrec_model_condition{type="Stale",status="True"} == 1
    summary: {{ `Model {{ $labels.namespace }}/{{ $labels.name }} is older than its schedule allows.` | quote }}
  - name: ThinkRecModelProgressingLong
    severity: warning
    for: {{ $values.modelProgressHours }}h
    expr: thinkrec_model_condition{type="Reconciling",status="True"} == 1
    summary: {{ printf "Model {{ $labels.namespace }}/{{ $labels.name }} has been on its way for more than %v hours." $values.modelProgressHours | quote }}
experiments:
  - name: ThinkRecExperimentStalled
    severity: warning
    for: 5m
    expr: thinkrec_experiment_condition{type="Stalled",status="True"} == 1
    summary: {{ `Experiment {{ $labels.namespace }}/{{ $labels.name }} cannot go on until something is changed.` | quote }}
  - name: ThinkRecExperimentVariantDown
    severity: warning
    for: 10m
    expr: thinkrec_experiment_condition{type="VariantsReady",status="False"} == 1 and on (namespace, name) thinkrec_experiment_condition{type="TrafficConfigured",status="True"} == 1
    summary: {{ `A variant of experiment {{ $labels.namespace }}/{{ $labels.name }} does not answer; control answers for it.` | quote }}
operator:
  - name: ThinkRecOperatorDown
    severity: critical
    for: 10m
    expr: absent(thinkrec_event_loop_lag_seconds)
    summary: No thinkrec operator reports metrics; models are not reconciled. What serves goes on serving.
  - name: ThinkRecWatchStale
    severity: critical
    for: 5m
    expr: max by (kind) (thinkrec_watch_overdue_seconds) > 120
    summary: {{ `The operator knows of a change of a {{ $labels.kind }} that its watch has not delivered.` | quote }}
  - name: ThinkRecReconcileErrors
    severity: warning
    for: 15m
    expr: sum by (result) (rate(thinkrec_reconcile_total{result="error"}[10m])) > 0
    summary: Reconciliations keep failing.
  - name: ThinkRecReconcileSlow
    severity: warning
    for: 15m
    expr: histogram_quantile(0.99, sum by (le) (rate(thinkrec_reconcile_duration_seconds_bucket[10m]))) > {{ $values.reconcileSeconds }}
    summary: {{ printf "One reconciliation in a hundred takes more than %v s." $values.reconcileSeconds | quote }}
  - name: ThinkRecQueueBacklog
    severity: warning
    for: 15m
    expr: min_over_time(thinkrec_queue_depth[5m]) > {{ $values.queueDepth }}
    summary: {{ printf "More than %v models have been waiting to be reconciled." $values.queueDepth | quote }}
  - name: ThinkRecApiErrors
    severity: warning
    for: 10m
    expr: sum(rate(thinkrec_api_requests_total{code=~"0|429|5.."}[10m])) / sum(rate(thinkrec_api_requests_total[10m])) > 0.05
    summary: More than 5 % of the operator's calls to the apiserver fail.
  - name: ThinkRecApiForbidden
    severity: warning
    for: 10m
    expr: sum by (verb, kind) (rate(thinkrec_api_requests_total{code="403"}[10m])) > 0
    summary: {{ `The operator may not {{ $labels.verb }} {{ $labels.kind }}: its role does not fit its version.` | quote }}
  - name: ThinkRecEventLoopSlow
    severity: warning
    for: 10m
    expr: max_over_time(thinkrec_event_loop_lag_seconds[5m]) > 1
    summary: The operator's event loop lags by more than a second.
{{- end }}
