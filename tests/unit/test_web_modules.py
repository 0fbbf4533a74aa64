"""The modules that the page and the query picker share: both use them, and they become one script for a notebook."""

import re

import pytest

from helpers import paths
from helpers.visualization import web_modules
from helpers.visualization.web_modules import FOLDER, bundle

PAGE = paths.ROOT / "helpers" / "service" / "page"
PICKER = paths.ROOT / "helpers" / "picker" / "static"


def imports(path):
    """The modules that a module imports, with the imported names."""
    found = re.findall(r'^import \{ (.+) \} from "\./(.+)";$', path.read_text(encoding="utf-8"), re.M)
    return {
        (FOLDER if file.startswith("web/") else path.parent) / file.removeprefix("web/"): names.split(", ")
        for names, file in found
    }


def used(folder):
    """Shared modules that the scripts of a folder import, directly or not."""
    found, waiting = set(), list(folder.glob("*.js"))
    while waiting:
        for path in imports(waiting.pop()):
            if path.parent == FOLDER and path not in found:
                found.add(path)
                waiting.append(path)
    return {path.name for path in found}


def test_the_page_and_the_picker_use_the_same_modules():
    modules = {path.name for path in FOLDER.glob("*.js")}
    assert modules >= {"cards.js", "crop_box.js", "image_viewer.js", "parts.js", "words.js"}
    assert used(PAGE) == used(PICKER) == modules
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert 'class="lookalike"' in page and "static/web/theme.css" in page
    widget = pytest.importorskip("helpers.picker.view").PickerView
    assert all(f"module_{name.removesuffix('.js')} = " in widget._esm for name in modules)
    assert web_modules.theme().count("light-dark") == widget._css.count("light-dark")


def test_shared_words_and_icons_are_used_and_written_once():
    own = {name: (FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in ("words", "icons")}
    icons = dict(re.findall(r'^  (\w+): "([^"]+)"', own["icons"], re.M))
    words = re.findall(r'"([A-Z][^"]* [^"]+)"', own["words"])
    assert {"add", "link", "undo"} <= set(icons) and {"All classes", "Why similar?", "No re-ranking"} <= set(words)
    files = [PAGE / "index.html", *(path for folder in (PAGE, PICKER, FOLDER) for path in folder.glob("*.js"))]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path.stem not in own)
    assert [each for each in [*words, *icons.values()] if each in text] == [], "use words.js and icons.js"
    controls = re.findall(r"^  (\w+): \[", own["words"], re.M)
    assert [name for name in icons if f'"{name}"' not in text and name not in controls] == [], "icons of no button"


@pytest.mark.parametrize("folder", [PAGE, PICKER, FOLDER], ids=lambda folder: folder.name)
def test_each_imported_name_is_exported(folder):
    for path in folder.glob("*.js"):
        for imported, names in imports(path).items():
            exported = re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", imported.read_text(), re.M)
            assert set(names) <= set(exported), f"{path.name} imports from {imported.name}"
            text = path.read_text()
            assert all(len(re.findall(rf"\b{name}\b", text)) > 1 for name in names), f"unused in {path.name}"


def test_other_forms_of_imports_and_exports_are_errors(tmp_path):
    main = tmp_path / "main.js"
    for line in ('import dom from "./web/dom.js";', 'export { a } from "./web/dom.js";', 'import "./web/dom.js";'):
        main.write_text(f"// A module.\n{line}\nexport default 1;\n")
        with pytest.raises(ValueError, match="main.js, line 2"):
            bundle(main)
    main.write_text("const a = 1;\n")
    with pytest.raises(ValueError, match="no default export"):
        bundle(main)
    main.write_text('import { a } from "./main.js";\nexport default 1;\n')
    with pytest.raises(ValueError, match="main.js → main.js"):
        bundle(main)


def test_a_bundle_runs_each_module_once(tmp_path):
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nexport const a = () => b;\nconst hidden = 1;\n')
    (tmp_path / "b.js").write_text("export const b = 'import { x } from \"./x.js\";';\nexport class C {}\n")
    (tmp_path / "main.js").write_text(
        'import { a } from "./a.js";\nimport { C, b } from "./b.js";\nexport default [a, b, C];\n'
    )
    text = bundle(tmp_path / "main.js")
    assert text.count("const module_b = ") == 1 and text.index("module_b =") < text.index("module_a =")
    assert "const { C, b } = module_b;" in text and "return { b, C };" in text
    assert re.findall(r"^(?:import|export)\b.*$", text, re.M) == ["export default [a, b, C];"]


def test_the_styles_name_each_color_once():
    colors = re.findall(r"^  (--[\w-]+): .*light-dark", web_modules.theme(), re.M)
    assert len(colors) > 12 and len(set(colors)) == len(colors)
