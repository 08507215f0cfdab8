"""Tests of key files and of the commands that keep them."""
