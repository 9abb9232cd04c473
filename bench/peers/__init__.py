"""Servers of other houses, each behind one small adapter; `python -m bench.peers` installs them."""
