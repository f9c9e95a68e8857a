{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "thinkrec.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}
