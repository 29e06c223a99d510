"""`python -m xtune`, and `torchrun -m xtune`."""

from .cli import main

if __name__ == '__main__':
    main()
