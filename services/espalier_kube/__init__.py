"""The door to the Kubernetes API: one small interface, the real client behind it, and a fake that passes the same suite.

Only this package imports `kubernetes`. Objects are the API's own JSON dictionaries. No controller logic may enter.
"""
