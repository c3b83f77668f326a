"""``python -m penstock.api.cli``: the same as `penstock`, where it is not on PATH."""

from . import main

if __name__ == "__main__":
    main()
