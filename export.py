"""Write a trained network for use elsewhere: python export.py RUN|STUDY|FILE.ckpt --to onnx"""

from pathlib import Path

from tbptt.cli import tool

if __name__ == "__main__":
    tool.script("export", Path(__file__).resolve().parent / "conf")
