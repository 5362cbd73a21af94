"""The executors `benchmark.*` and the free-form ones: what a task reads, what of the library it calls, what it returns.

Only wiring may enter; what is decided is decided in the library.
"""
