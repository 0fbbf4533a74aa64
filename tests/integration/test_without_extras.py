"""The library without the packages of extras, in a new process."""

import subprocess
import sys

from helpers import extras, paths


def test_the_library_can_be_imported_without_extras():
    """All modules can be imported, except for those that need an extra. Takes 5 seconds because of Keras."""
    optional = sorted(module for extra in extras.EXTRAS.values() for module in extra.packages)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({optional}))\n"
        "import importlib, pathlib\n"
        "from helpers import cli, extras, paths\n"
        "missing = set()\n"
        "for path in sorted((paths.ROOT / 'helpers').rglob('*.py')):\n"
        "    if path.name == '__main__.py': continue\n"
        "    parts = path.relative_to(paths.ROOT).with_suffix('').parts\n"
        "    module = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)\n"
        "    try: importlib.import_module(module)\n"
        "    except extras.MissingExtra: missing.add(module)\n"
        "print(*sorted(missing))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=paths.child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outside_of_the_service = [module for module in done.stdout.split() if not module.startswith("helpers.service")]
    assert outside_of_the_service == [
        "helpers.lessons.full_profile", "helpers.lessons.lesson", "helpers.lessons.readme", "helpers.picker.view",
        "helpers.search.backends.annoy_backend", "helpers.search.backends.elasticsearch_backend",
        "helpers.search.backends.milvus_backend", "helpers.visualization.tables",
    ]  # fmt: skip
