"""The operator: level-based reconciliation of our kinds, observe → plan → apply → report.

kopf enters only in `handlers` and `__main__`; `plan/` is pure. No task runs here, no model is asked here.
"""
