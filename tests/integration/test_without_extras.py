"""The library without the packages of the extras."""

import subprocess
import sys

from helpers import extras, paths


def test_the_library_starts_without_any_extra():
    """Only the modules of an extra raise `MissingExtra`. Takes 5 seconds, because Keras is imported."""
    optional = sorted(module for extra in extras.EXTRAS.values() for module in extra.packages)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({optional}))\n"
        "import importlib, pathlib\n"
        "from helpers import extras, paths\n"
        "missing = set()\n"
        "for path in sorted((paths.ROOT / 'helpers').rglob('[!_]*.py')):\n"
        "    module = '.'.join(path.relative_to(paths.ROOT).with_suffix('').parts)\n"
        "    try: importlib.import_module(module)\n"
        "    except extras.MissingExtra: missing.add(module)\n"
        "print(*sorted(missing))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=paths.child_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outside_service = [module for module in done.stdout.split() if not module.startswith("helpers.service")]
    assert outside_service == [
        "helpers.lessons.baseline_studies", "helpers.lessons.full_profile", "helpers.lessons.lesson",
        "helpers.lessons.published_claims", "helpers.lessons.readme", "helpers.lessons.transfer_studies",
        "helpers.lessons.zoo_table", "helpers.networks.trial_actors", "helpers.picker.view",
        "helpers.search.backends.annoy_backend",
        "helpers.search.backends.elasticsearch_backend", "helpers.search.backends.milvus_backend",
        "helpers.search.backends.opensearch_backend",
        "helpers.visualization.tables",
    ]  # fmt: skip
