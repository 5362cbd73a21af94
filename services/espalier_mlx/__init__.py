"""A model server: the OpenAI API over MLX with continuous batching, admission and token-progress health.

Only `engine`, `loading`, `gguf` and `grammar` may import mlx; no Kubernetes may enter.
"""
