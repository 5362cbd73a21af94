"""Other task queues under the coordinator's load: each in an environment of its own, none is imported by our code."""
