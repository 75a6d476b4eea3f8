"""Studies: a question, arms that answer it, and a verdict by statistics that were named before the run.

A study is a YAML file (`plan.py`). Each arm is trained and measured with each seed (`cells.py`, `runner.py`), what
came out is kept as small records, and from the records alone the arms are compared (`compare.py`) and the report is
written (`report.py`).
"""
