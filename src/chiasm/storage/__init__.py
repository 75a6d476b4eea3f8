"""Files and folders: what is written whole, read without executing anything, and checked."""
