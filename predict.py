"""Predict with a trained network: python predict.py RUN|STUDY|FILE.ckpt data.path=new.csv"""

from pathlib import Path

from tbptt.cli import tool

if __name__ == "__main__":
    tool.script("predict", Path(__file__).resolve().parent / "conf")
