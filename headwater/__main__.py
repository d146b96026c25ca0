"""What does `python -m headwater` do? The same as the command `headwater`."""

from headwater.cli import main

if __name__ == "__main__":
    main()
