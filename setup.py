"""What pyproject.toml cannot say without an experimental table: the compiled layers of src/tbptt/models/kernels.py."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "tbptt.models._kernels",
            sources=["src/tbptt/models/native/kernels.c"],
            depends=["src/tbptt/models/native/kernels_of.h"],
            # For this machine's own processor.
            extra_compile_args=["-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"],
            optional=True,  # without a C compiler PyTorch's own layers are used
        )
    ]
)
