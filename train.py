"""Train one run, or with -m a sweep of them: python train.py --help"""

from pathlib import Path

from tbptt.cli import tool

CONF = Path(__file__).resolve().parent / "conf"  # wherever this is called from, through links, too

if __name__ == "__main__":
    tool.script("train", CONF)
