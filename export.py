"""Write a trained network for use elsewhere: python export.py RUN|STUDY|FILE.ckpt --to onnx"""

from tbptt.system import early  # first: what follows takes a third of a second

if __name__ == "__main__":
    early.end_quietly()

import sys
from pathlib import Path

from tbptt.cli.export import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent / "conf"))
