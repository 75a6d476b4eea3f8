"""Heads that write masks."""
