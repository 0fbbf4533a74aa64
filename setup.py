"""Adds to the built package what the library reads from data/ at run time; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Not data/sample and data/scenes: the images are GPL-2 and GPL-3, and the package is MIT.
PATTERNS = ("imagenet_classes.csv", "projections/*.npz", "vocabularies/*.npz", "protocols/*.json", "audit_recall.csv")


class BuildWithData(build_py):
    """Copies the data to helpers/_data, where `helpers.paths.data_dir` finds them in an installed package."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for pattern in PATTERNS:
            sources = sorted(Path("data").glob(pattern))
            if not sources:
                raise FileNotFoundError(f"data/{pattern} matches no file: the package would be incomplete")
            for source in sources:
                target = Path(self.build_lib, "helpers", "_data", source.relative_to("data"))
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target), preserve_mode=False)


setup(cmdclass={"build_py": BuildWithData})
