"""The words everybody shares: kinds, conditions, reasons, task payloads. The API's source.

Depends on pydantic alone. No I/O, no Kubernetes client, no program's logic may enter.
"""

GROUP = "espalier.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
