"""The door to the Kubernetes API: one small interface, the real client, and a fake under the same suite.

Only this package imports `kubernetes`. Objects are the API's own JSON dictionaries. No controller logic may enter.
"""
