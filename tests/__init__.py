"""The tests; they run the pure modules unless `make test-compiled` asks for the compiled ones."""

import os

os.environ.setdefault("MINDBUS_COMPILED", "0")
