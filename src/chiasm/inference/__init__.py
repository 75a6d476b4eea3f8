"""Answers in words and images: one engine that makes them for all who ask, and what they ask for."""
