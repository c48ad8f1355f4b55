"""`rlvr curate` for `python` and `accelerate launch`: the same arguments, the same function."""

import sys

from rlvr.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["curate"]
    main()
