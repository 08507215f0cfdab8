"""Traces of orders, as a real OTLP receiver gets them."""
