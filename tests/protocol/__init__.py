"""Tests of `protocol/`, one file per file."""
