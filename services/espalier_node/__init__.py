"""Makes a machine a Kubernetes Node and runs its pods as native processes under shims.

Only `machine/` knows the hardware; nothing of grading, models or the operator may enter.
"""
