"""In which order the positions of an image are predicted, and who sees whom."""
