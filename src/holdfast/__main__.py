"""`python -m holdfast WORDS` is `python train.py WORDS`."""

from holdfast.main import main

if __name__ == "__main__":
    main()
