"""Data as people have it, turned into the fragments that a task is made of."""
