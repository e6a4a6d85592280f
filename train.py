"""The command line: `python train.py lr=0.01`."""

from holdfast.cli.main import main

if __name__ == "__main__":
    main()
