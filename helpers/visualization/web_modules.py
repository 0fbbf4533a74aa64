"""The scripts and styles in ``helpers/visualization/web``, which the page of the service and the query picker share.

The page loads them as ES modules. A notebook widget consists of one script, so `bundle` joins the modules. It reads
lines, not JavaScript; so each import and each export must begin its line and have one of these forms:

    import { name, name } from "./file.js";
    export const name / export function name / export async function name / export class name / export default
"""

import re
from pathlib import Path

#: The folder of the shared modules. Its modules import ``./file.js``; others import ``./web/file.js``.
FOLDER = Path(__file__).parent / "web"

_IMPORT = re.compile(r'import \{ (\w+(?:, \w+)*) \} from "\./(web/)?([a-z_]+\.js)";')
_EXPORT = re.compile(r"export (default |(?=(?:const|(?:async )?function|class) (\w+)))")
_KEYWORD = re.compile(r"(import|export)\b")


def theme() -> str:
    """The shared styles."""
    return (FOLDER / "theme.css").read_text(encoding="utf-8")


def bundle(main: Path) -> str:
    """A module with all its imports as one ES module: each imported module becomes a function that runs once.

    Raises ValueError: the form of an import or export is not supported, or modules import each other.
    """
    parts: dict[Path, str] = {}
    body, exported = _add(main, parts, ())
    if "default" not in exported:
        raise ValueError(f"{main.name} has no default export")
    return "".join(parts.values()) + body


def _add(path: Path, parts: dict[Path, str], users: tuple[Path, ...]) -> tuple[str, list[str]]:
    """The text of a module without imports, and its exported names. Adds the modules that it imports to ``parts``."""
    if path in users:
        raise ValueError(f"{path.name} imports itself: {' → '.join(each.name for each in (*users, path))}")
    is_main = not users
    lines, exported = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not _KEYWORD.match(line):
            lines.append(line)
        elif match := _IMPORT.fullmatch(line):
            imported = (FOLDER if match[2] else path.parent) / match[3]
            if imported not in parts:
                text, names = _add(imported, parts, (*users, path))
                parts[imported] = (
                    f"const {_variable(imported)} = (() => {{\n{text}return {{ {', '.join(names)} }};\n}})();\n"
                )
            lines.append(f"const {{ {match[1]} }} = {_variable(imported)};")
        elif match := _EXPORT.match(line):
            exported.append(match[2] or "default")
            lines.append(line if is_main else line[len(match[0]) :])
        else:
            raise ValueError(f"{path.name}, line {number}: this form of an import or export is not supported: {line}")
    return "\n".join(lines) + "\n", exported


def _variable(path: Path) -> str:
    return f"module_{path.stem}"
