"""Tests of `workers/`, one file per file."""
