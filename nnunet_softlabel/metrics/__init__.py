"""Metrics: pure functions on arrays; `registry` names them all. No files, no torch."""
