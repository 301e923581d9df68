"""OpenTelemetry: spans of requests and completions, sent by OTLP. An optional extra."""
