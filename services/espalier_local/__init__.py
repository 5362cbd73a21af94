"""A local Kubernetes for the first hour, for one machine and for the tests: binaries, PKI, processes, hosts, releases.

No product logic may enter; the charts bring the product.
"""
