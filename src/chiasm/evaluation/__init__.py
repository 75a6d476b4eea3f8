"""Measuring a trained model: tasks with their controls, statistics, cost and the report."""
