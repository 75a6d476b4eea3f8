"""What one position of an image says, with its loss and its draw."""
