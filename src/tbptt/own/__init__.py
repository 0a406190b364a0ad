"""Options of your own: a file each, beside its conf/GROUP/NAME.yaml (docs/using.md).

The files lie in ``own/``, in the working directory or beside ``conf/``, or in this folder; of two with the same name
the one that comes first in this order is taken. All are modules of this package, ``tbptt.own.NAME``, so that their
names cannot be those of installed packages, and whoever meets their classes by name, as a job on another machine, finds
them.
"""

from pathlib import Path

from tbptt.system import folders

of_models: list[str] = []  # folders of files that came with MLflow models which this process loads (serving/pyfunc.py)


def look() -> None:
    """Look for files of your own in the working directory, which may be another by now, and beside conf/."""
    project = folders.checkout()
    places = [Path.cwd(), *([project] if project else [])]
    found = dict.fromkeys(str((place / "own").resolve()) for place in places if (place / "own").is_dir())
    __path__[:] = [*found, str(Path(__file__).parent), *of_models]


look()
