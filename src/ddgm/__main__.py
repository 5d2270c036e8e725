"""``python -m ddgm``: the command line."""

from ddgm.cli import main

# Worker processes load this file as well.
if __name__ == "__main__":
    main()
