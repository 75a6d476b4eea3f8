"""`python -m chiasm.cli`, as a launcher of several processes needs it."""

from chiasm.cli import main

if __name__ == "__main__":
    main()
