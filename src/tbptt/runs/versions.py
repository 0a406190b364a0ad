"""The version of the running code as tags of a run: its git checkout, and the versions of its dependencies."""

import contextlib
import platform
import subprocess
from functools import cache
from importlib.metadata import version

from tbptt.options.own import own_digest
from tbptt.system import folders

PACKAGES = ("tbptt", "torch", "pytorch-lightning", "hydra-core", "optuna", "mlflow", "numpy")


@cache
def _code_tags() -> tuple[tuple[str, str], ...]:
    tags = {f"versions.{name}": version(name) for name in PACKAGES}
    tags["versions.python"] = platform.python_version()
    project = folders.checkout()
    if project is None:  # a repository around an installed package is another project's
        return tuple(tags.items())
    git = ["git", "-C", str(project)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["git.sha"] = subprocess.check_output(
            [*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True
        ).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--untracked-files=no"], text=True)
        tags["git.dirty"] = str(bool(changed.strip())).lower()
    return tuple(tags.items())


def code_tags() -> dict[str, str]:
    """The code of this process, as tags ``git.*`` and ``versions.*``.

    If there are files in ``own/``, there is also ``own.sha256``, as git may not know these files.
    """
    own = own_digest()
    return {**dict(_code_tags()), **({"own.sha256": own} if own else {})}
