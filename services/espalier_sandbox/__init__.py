"""What confines somebody else's program inside a pod: the system calls it may not make, and `espalier-sandbox`, which
runs it on a worker's behalf in a container without token, network or writable root, and says how it ended.
Only the standard library and the kit may enter: everything imported here lies beside a stranger's code."""
