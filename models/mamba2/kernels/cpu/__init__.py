"""The `cpu` backend: prefill and rollout of whole stacks in C++, with the best instructions that the processor has."""
