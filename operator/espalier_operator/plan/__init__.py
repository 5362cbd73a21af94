"""Decisions: from frozen facts and a time to wished children, wished work, status and notices.

Pure. No I/O, no clock of its own, no client may enter.
"""
