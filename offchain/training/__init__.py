"""The training engine and its checkpoints (PoT 2.3; design section 8)."""
