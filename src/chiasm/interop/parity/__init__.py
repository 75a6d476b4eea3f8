"""The original projects' recorded runs, replayed with our parts."""
