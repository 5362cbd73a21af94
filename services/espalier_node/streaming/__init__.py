"""`kubectl exec`, `attach` and `port-forward` on this node: one module per protocol, none knows the others.

The API server passes WebSockets on to us because the Node declares `ExtendWebSocketsToKubelet`; SPDY without a
WebSocket around it is not spoken here. Nothing that decides who may enters here: `access` has said so before.
"""
