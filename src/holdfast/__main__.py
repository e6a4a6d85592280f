"""`python -m holdfast WORDS` is `python train.py WORDS`."""

import os
import sys

# `python -m` puts the working folder first on the path, where its modules take the place of any library's. This has to
# come before all other imports; `main` puts the folder last, unless it is that of a run or a sweep.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:
    del sys.path[0]

from holdfast.cli.main import main

if __name__ == "__main__":
    main()
