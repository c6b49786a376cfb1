"""Benchmark of loss-conditional training against one network per loss coefficient."""

__version__ = "0.1.0"
