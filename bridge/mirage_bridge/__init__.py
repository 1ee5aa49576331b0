"""Mirage."""
