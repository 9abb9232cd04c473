"""Servables to try MindBus with, and the scripts that make their models."""
