"""The files that MLflow puts into a model beside our checkpoint. MLflow makes them for the first model of a kind, which
takes it 0.1 s; the next ones of this process get the same files, with what is each model's own set anew."""

import os
import re
import tempfile
import warnings
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # else files of the working directory would go into each model

LOADER = "tbptt.serving.pyfunc"
DATA = "data"
# Without requirements MLflow runs the model in a process of its own, to see what it imports, for seconds. Requirements
# that hold here it looks up among all installed packages, for a second. So it gets one that never holds.
NO_LOOK_UP = "mlflow; python_version < '3'"
BEFORE = ("input_example.json", "serving_input_example.json")  # what is there when MLflow takes the model's size
MOST_KINDS = 8


class Made(NamedTuple):
    """What MLflow made for a model: the content of ``MLmodel``, and its other files by name."""

    model: dict[str, Any]
    files: dict[str, bytes]


_made: OrderedDict[tuple[Any, ...], Made] = OrderedDict()


def write(
    folder: Path,
    data: dict[str, bytes],
    signature: "ModelSignature",
    example: "pd.DataFrame",
    run_id: str | None,
    model_id: str | None,
) -> None:
    """Write an MLflow model.

    Args:
        folder: a folder that does not exist, or is empty.
        data: our files, by their paths below the model's folder ``data``. All lie in one folder.
    """
    packages = requirements()
    (ours,) = {path.split("/")[0] for path in data}
    kind = (str(signature.to_dict()), example.to_json(double_precision=15), ours, *packages)
    if kind in _made:
        _made.move_to_end(kind)
        _write_again(_made[kind], folder, data, run_id, model_id)
        return
    _write_by_mlflow(folder, data, signature, example, run_id, model_id)
    _require(folder, packages)
    _made[kind] = _kept(folder)
    while len(_made) > MOST_KINDS:
        _made.popitem(last=False)


def _write_by_mlflow(
    folder: Path,
    data: dict[str, bytes],
    signature: "ModelSignature",
    example: "pd.DataFrame",
    run_id: str | None,
    model_id: str | None,
) -> None:
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow about its own classes, and pandas about MLflow
        import mlflow.pyfunc

        _put(data, Path(temporary))
        (ours,) = Path(temporary).iterdir()
        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module=LOADER,
            data_path=str(ours),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            signature=signature,
            input_example=example,
            pip_requirements=[NO_LOOK_UP],
        )


def _kept(folder: Path) -> Made:
    """What is to be kept of a model that was written."""
    from mlflow.models import Model

    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "MLmodel"}
    return Made(Model.load(str(folder / "MLmodel")).to_dict(), files)


def _write_again(made: Made, folder: Path, data: dict[str, bytes], run_id: str | None, model_id: str | None) -> None:
    """Write one more model of the kind of ``made``."""
    from mlflow.models import Model

    _put({f"{DATA}/{path}": content for path, content in data.items()} | made.files, folder)
    new = Model()  # with an id and a time of its own
    own = {"run_id": run_id, "model_id": model_id, "model_uuid": new.model_uuid}
    own["utc_time_created"] = new.utc_time_created
    size = sum(map(len, data.values())) + sum(len(made.files.get(name, b"")) for name in BEFORE)
    Model.from_dict({**made.model, **own, "model_size_bytes": size}).save(folder / "MLmodel")


def _put(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _require(folder: Path, packages: list[str]) -> None:
    """Have an MLflow model's files say which packages it needs."""
    (folder / "requirements.txt").write_text("\n".join([*packages, ""]))
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    conda["dependencies"] = [*(one for one in conda["dependencies"] if isinstance(one, str)), {"pip": packages}]
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))


@cache
def requirements() -> list[str]:
    """The packages that tbptt needs, as they are installed here.

    tbptt itself is not among them: it is installed from its repository, and whoever takes that name on PyPI is somebody
    else.
    """
    found = []
    with suppress(metadata.PackageNotFoundError):  # tbptt itself, which need not be installed
        for line in metadata.requires("tbptt") or []:
            name = re.match(r"[\w.-]+", line)
            if name is not None and "extra ==" not in line:
                with suppress(metadata.PackageNotFoundError):
                    found.append(f"{name[0]}=={metadata.version(name[0]).split('+')[0]}")
    return found
