"""The public HTTP API of an aggregator (design section 10; PoT 3.3: FetchOrders, FetchValidations, Get)."""
