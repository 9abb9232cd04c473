"""The tests. Here the pure modules run, and in the processes that are started what users get.

`make test-compiled` asks for the compiled modules here as well.
"""

import os

import compiled

if compiled.SWITCH not in os.environ:
    os.environ[compiled.SWITCH] = compiled.NEVER
    compiled.use()
    del os.environ[compiled.SWITCH]
