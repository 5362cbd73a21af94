"""What one may ask of the coordinator, one call at a time: the same for gRPC and for REST.

A call takes who asks and a message, and gives a message once its effect is on disk. No transport may enter.
"""
