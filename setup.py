"""What pyproject.toml cannot say without an experimental table: the compiled layers of src/tbptt/models/kernels.py, and
that a wheel carries conf/ inside the package (src/tbptt/system/folders.py)."""

import platform
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

CONF = "conf"


class WithConf(build_py):
    """Copies conf/ to tbptt/conf/ of what is built. An editable install reads the checkout's own."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.rmtree(self._there, ignore_errors=True)  # of an earlier build: what was removed since stays away
            for file, copy in self._copies():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copies = [] if self.editable_mode else [str(copy) for _, copy in self._copies()]
        return [*super().get_outputs(include_bytecode), *copies]

    @property
    def _there(self) -> Path:
        return Path(self.build_lib, "tbptt", CONF)

    def _copies(self) -> list[tuple[Path, Path]]:
        return [(file, self._there / file.relative_to(CONF)) for file in sorted(Path(CONF).rglob("*.yaml"))]


COMPILER = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
# What each instruction set needs beside what every processor of the architecture has. Which of them a processor has is
# asked when the package is used (kernels.py), so that what is built on one machine is as fast on another.
SETS = {"plain": list[str]()}
if platform.machine() in ("x86_64", "AMD64"):
    SETS["avx2"] = ["-mavx2", "-mfma", "-mbmi2"]
    # GCC takes narrower vectors for plain loops on most Intel processors unless it is told.
    avx512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
    SETS["avx512"] = [*SETS["avx2"], *avx512]

setup(
    cmdclass={"build_py": WithConf},
    ext_modules=[
        Extension(
            f"tbptt.models._kernels_{name}",
            sources=["src/tbptt/models/native/kernels.c"],
            depends=[str(file) for file in Path("src/tbptt/models/native").glob("*.h")],
            define_macros=[("SET", name)],
            extra_compile_args=[*COMPILER, *flags],
            optional=True,  # without a C compiler PyTorch's own layers are used
        )
        for name, flags in SETS.items()
    ],
)
