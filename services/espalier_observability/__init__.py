"""What people look at: Grafana dashboards, alerts, and how Prometheus finds our programs, written into the chart.

Runs on a developer's machine only (`python -m espalier_observability generate`). No program imports it.
"""
