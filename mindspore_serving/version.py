"""The MindSpore release that this package is made for and tested with.

MindSpore Serving wants MindSpore of its own version: where the first two components differ, it
warns at the start. API and behaviour are those of MindSpore Serving 2.0, its last line; the
version follows MindSpore, so that the warning says what is true.
"""

__version__ = "2.10.0"
