"""How much work waits for each shared pool, for whoever scales it: the API server's external metrics, and KEDA.

Reads the engine; nothing here changes it.
"""
