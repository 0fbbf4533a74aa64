"""The library without the packages of any extra, in a process that has not imported them."""

import subprocess
import sys

from helpers import extras, paths


def test_the_library_starts_without_any_extra():
    """All modules can be imported but those of an extra, which name it. Takes 5 seconds: Keras is imported, too."""
    optional = sorted(module for extra in extras.EXTRAS.values() for module in extra.packages)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({optional}))\n"
        "import importlib, pathlib\n"
        "from helpers import cli, extras, paths\n"
        "refused = set()\n"
        "for path in sorted((paths.ROOT / 'helpers').rglob('*.py')):\n"
        "    parts = path.relative_to(paths.ROOT).with_suffix('').parts\n"
        "    module = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)\n"
        "    try: importlib.import_module(module)\n"
        "    except extras.MissingExtra: refused.add(module)\n"
        "print(*sorted(refused))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=paths.child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outside_app = [module for module in done.stdout.split() if not module.startswith("helpers.service")]
    assert outside_app == [
        "helpers.search.backends.annoy_backend", "helpers.search.backends.elasticsearch_backend",
        "helpers.search.backends.milvus_backend", "helpers.lessons.full_profile", "helpers.lessons.lesson",
        "helpers.picker.view", "helpers.lessons.readme", "helpers.visualization.tables",
    ]  # fmt: skip
