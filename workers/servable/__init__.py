"""What `servable_config.py` declares: models, methods and stages; and how it is found and read."""
