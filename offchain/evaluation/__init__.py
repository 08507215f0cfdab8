"""``VRF_Model``: the exact validation function, its specification and its fast backend (PoT 2.1, 2.5)."""
