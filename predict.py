"""Predict with a trained network: python predict.py RUN|STUDY|FILE.ckpt data.path=new.csv"""

from tbptt.system import early  # first: what follows takes a third of a second

if __name__ == "__main__":
    early.end_quietly()

import sys
from pathlib import Path

from tbptt.cli.predict import main
from tbptt.system.endings import leave

if __name__ == "__main__":
    leave(main(sys.argv[1:], Path(__file__).resolve().parent / "conf"))
