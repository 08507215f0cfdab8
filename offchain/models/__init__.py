"""Models: the layer vocabulary, families on top of it, Flax modules and model files."""
