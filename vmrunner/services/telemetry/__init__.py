"""Spans, and their export. The only OpenTelemetry, of the extra `otel`."""
