"""W1 to W7: what each one starts and how it is loaded."""
