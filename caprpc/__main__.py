"""``python -m caprpc`` is ``caprpc``."""

from caprpc.cli import main

if __name__ == "__main__":
    main(prog_name="caprpc")
