"""Tests of commands that look after a node."""
