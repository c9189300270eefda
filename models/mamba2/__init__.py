"""The Mamba2 layer, its state and its kernels. Imports only the standard library, numpy and torch."""
