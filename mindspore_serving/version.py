"""The MindSpore Serving release whose behaviour this package offers."""

__version__ = "2.0.2"
