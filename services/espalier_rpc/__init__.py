"""The door to gRPC: generated messages (`v1/`, checked by `make verify`), servers and channels with TLS and tokens.

Domain code never sees a `_pb2`; servicers convert at the edge. No scheduling, no storage may enter.
"""
