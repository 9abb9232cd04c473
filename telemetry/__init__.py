"""Logging, metrics and tracing; imports nothing of the other rooms."""
