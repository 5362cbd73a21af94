"""The only place that knows the hardware and the operating system; everything above speaks the protocol in `base`.

No Kubernetes may enter.
"""
