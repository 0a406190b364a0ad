"""Read arrays from a file that may have come from elsewhere: as numbers, bounded in size, or refused with one line."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_BYTES = 4_000_000  # of one array: the arrays that runs keep have 2,000 points, or one per series
MOST_ARRAYS = 100


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, Array]:
    """The arrays of a ``.npz`` whose names are ``wanted``, as float64.

    Raises ValueError with one line if the file is no such file, or holds anything but numbers.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = [m for m in file.infolist() if m.filename.endswith(".npy") and wanted(m.filename[:-4])]
            if len(members) > MOST_ARRAYS or any(m.file_size > MOST_BYTES for m in members):
                raise ValueError("larger than what runs keep")
            return {m.filename[:-4]: _numbers(file.read(m)) for m in members}
    except Exception as error:  # zipfile, zlib and NumPy raise errors of their own for a damaged or forged file
        raise ValueError(f"{path.name} cannot be read: {str(error) or type(error).__name__}") from error


def _numbers(content: bytes) -> Array:
    found = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise ValueError("holds what are no numbers")
    return found.astype(np.float64)
