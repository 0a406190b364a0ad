"""``python -m tbptt``: the command ``tbptt``."""

from tbptt.cli.tool import console

if __name__ == "__main__":
    console()
