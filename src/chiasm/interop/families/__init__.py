"""Families of public checkpoints, a file a family, found by discovery. How to add one: see chiasm.interop."""
