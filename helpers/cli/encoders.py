"""`lookalike encoders`: which encoders of images and text there are, with licenses and sizes."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from helpers import extras
from helpers.cli import common
from helpers.cli.common import OK

if TYPE_CHECKING:
    from helpers.features.encoder_list import EncoderInfo

_TEXT = """
An encoder of images and text finds images by a description. None is downloaded by this command.

hub:PRESET is fetched by KerasHub at its first use; hub:FOLDER is a folder that save_to_preset wrote, or a copy of a
repository with the same files. onnx:FOLDER is a copy of a repository with ONNX files, for example by
`git clone https://huggingface.co/REPOSITORY` with Git LFS. Read the license of the weights before use.

  lookalike index photos -x hub:clip_vit_base_patch32
  lookalike index photos -x onnx:clip-vit-base-patch32

--json prints {"hub": …, "onnx": …}, each {"encoders", "remedy"}, with a list of {"name", "text", "parameters",
"megabytes", "license", "source"}, and how to install what is missing.
"""


def register(commands: "common.Commands") -> None:
    """Add the command to a parser."""
    command = common.add_command(
        commands,
        "encoders",
        _encoders,
        "List the encoders of images and text that --extractor hub: and onnx: open.",
        "lookalike encoders\nlookalike encoders --all\nlookalike encoders --json",
        _TEXT,
    )
    command.add_argument("--all", action="store_true", help="list all presets in KerasHub's registry, not only four")
    command.add_argument("--json", action="store_true", help="print JSON")


def _encoders(options: argparse.Namespace) -> int:
    from helpers.features import encoder_list

    remedies = {"hub": extras.missing("hub"), "onnx": extras.missing("onnx")}
    registry = encoder_list.hub_registry() if options.all else None
    found = {"hub": encoder_list.hub_encoders(registry), "onnx": encoder_list.onnx_encoders()}
    if options.json:
        common.print_json(
            {
                name: {"encoders": [asdict(one) for one in found[name]], "remedy": remedies[name] or None}
                for name in found
            }
        )
        return OK
    print("KerasHub, opened as hub:PRESET or hub:FOLDER:")
    _print(found["hub"])
    print("\nONNX files on Hugging Face, opened as onnx:FOLDER after a copy of the repository:")
    _print(found["onnx"])
    if not options.all:
        print("\nlookalike encoders --all lists all presets of KerasHub")
    for name, remedy in remedies.items():
        if remedy:
            print(f"[{name}: not here]: {remedy}")
    return OK


def _print(encoders: "list[EncoderInfo]") -> None:
    common.print_table(
        ("name", "embeds", "MB", "license", "source"),
        [
            (one.name, "images, text" if one.text else "images", f"{one.megabytes:,}", one.license, one.source)
            for one in encoders
        ],
    )
