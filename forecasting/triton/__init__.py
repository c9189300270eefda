"""Model repositories for NVIDIA Triton: what writes them, and what runs there in its Python backend."""
