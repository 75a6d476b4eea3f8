"""Where a run computes: devices, and the processes that share it."""
