"""Models behind an HTTP interface: OpenAI's request and reply shapes, with images in and out.

A model and its engine live in a thread of their own (`worker.py`); requests of all clients share its passes. What
a request may hold is a schema (`schema.py`): a field that cannot be honoured is refused by name.
"""
