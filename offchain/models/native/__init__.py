"""Kernels of our own for the host's processor, where XLA's are far from what it can do."""
