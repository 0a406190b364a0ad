"""Files of other kinds: refused by name, each with how its table becomes a file that is read."""

from pathlib import Path

# What other programs write, and how it becomes a file that is read here.
FOREIGN = {
    ".xlsx .xlsm .xlsb .xls .ods .numbers": "is a spreadsheet; save its sheet as CSV",
    ".json .jsonl .ndjson": "is JSON; write its table as CSV: pandas.read_json(path).to_csv('prices.csv')",
    ".xml .html .htm": "is a page or XML; save its table as CSV",
    ".feather .arrow .ipc": "is an Arrow file; write it as Parquet: "
    "pandas.read_feather(path).to_parquet('prices.parquet')",
    ".orc": "is an ORC file; write it as Parquet: pandas.read_orc(path).to_parquet('prices.parquet')",
    ".avro .dbn": "is a binary format of its own; write it as Parquet or CSV with the program that it comes from",
    ".h5 .hdf .hdf5 .nc .zarr": "is HDF5 or the like; write its table as Parquet: "
    "pandas.read_hdf(path).to_parquet('prices.parquet')",
    ".npy .npz": "is a NumPy array without names; write it as CSV: "
    "numpy.savetxt(…, delimiter=',', header='a,b', comments='')",
    ".pkl .pickle .joblib .pt .pth": "is a pickle, which can run code when it is read; where it comes from you, "
    "write it as Parquet: frame.to_parquet('prices.parquet')",
    ".sas7bdat .xpt": "is a SAS file; write it as Parquet: pandas.read_sas(path).to_parquet('prices.parquet')",
    ".dta": "is a Stata file; write it as Parquet: pandas.read_stata(path).to_parquet('prices.parquet')",
    ".sav .zsav": "is an SPSS file; write it as Parquet: pandas.read_spss(path).to_parquet('prices.parquet')",
    ".mat": "is a MATLAB file; write it as CSV there: writetable(T, 'prices.csv')",
    ".rds .rda .rdata": "is an R file; write it as CSV there: write.csv(x, 'prices.csv', row.names=FALSE)",
    ".db .sqlite .sqlite3 .duckdb .mdb .accdb": "is a database; write its table as CSV or Parquet",
    ".hst .fxt .scid .bi5": "is a trading program's own format; export it as CSV there",
    ".7z .rar .tar .tgz .lz4 .z": "is an archive of a kind that is not read; unpack it",
    ".pdf .doc .docx": "is a document; a table is read from CSV or Parquet",
}
MAGIC = {
    b"SQLite format 3": ".db",
    b"\x89HDF": ".h5",
    b"\x80\x02": ".pkl",
    b"\x80\x03": ".pkl",
    b"\x80\x04": ".pkl",
    b"\x80\x05": ".pkl",
    b"\xd0\xcf\x11\xe0": ".xls",
    b"ARROW1": ".feather",
    b"ORC": ".orc",
    b"Obj\x01": ".avro",
    b"\x93NUMPY": ".npy",
    b"%PDF": ".pdf",
    b"7z\xbc\xaf": ".7z",
    b"Rar!": ".rar",
    b"MATLAB": ".mat",
    b"<!DOCTYPE": ".html",
    b"<!doctype": ".html",
    b"<html": ".html",
    b"<?xml": ".xml",
    b"[{": ".json",
    b'{"': ".json",
}


def refuse_foreign(path: Path, suffix: str) -> None:
    """Raise ValueError if files with this suffix are of another kind."""
    for suffixes, reason in FOREIGN.items():
        if suffix in suffixes.split():
            raise ValueError(f"{path} {reason}")
