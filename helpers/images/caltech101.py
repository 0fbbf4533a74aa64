"""Caltech-101: 101 classes of objects and a class of random images (Fei-Fei, Fergus & Perona 2004).

Official layout: ``101_ObjectCategories/<class>/image_0001.jpg``. The classes Faces and Faces_easy contain the same
photographs, which `helpers.images.duplicates.audit` finds.
"""

from helpers.images import download
from helpers.images.folders import image_files
from helpers.images.imageset import ImageSet, numbered

BACKGROUND = "BACKGROUND_Google"

#: Classes that are also in ImageNet → an ImageNet class of the same thing, or of a kind of it (``butterfly``: monarch).
#: ImageNet has no class for the others, such as ``helicopter``, ``lotus`` and the faces.
KNOWN_TO_IMAGENET = {
    "accordion": "accordion", "airplanes": "airliner", "ant": "ant", "barrel": "barrel", "beaver": "beaver",
    "binocular": "binoculars", "butterfly": "monarch", "camera": "reflex camera", "cannon": "cannon",
    "car_side": "sports car", "cellphone": "cellular telephone", "chair": "rocking chair", "cougar_body": "cougar",
    "cougar_face": "cougar", "crab": "Dungeness crab", "crayfish": "crayfish", "crocodile": "African crocodile",
    "crocodile_head": "African crocodile", "cup": "cup", "dalmatian": "dalmatian", "dragonfly": "dragonfly",
    "electric_guitar": "electric guitar", "elephant": "African elephant", "ewer": "pitcher", "flamingo": "flamingo",
    "flamingo_head": "flamingo", "grand_piano": "grand piano", "hedgehog": "porcupine", "lamp": "table lamp",
    "laptop": "laptop", "Leopards": "leopard", "llama": "llama", "lobster": "American lobster",
    "nautilus": "chambered nautilus", "panda": "giant panda", "pizza": "pizza", "platypus": "platypus",
    "revolver": "revolver", "rooster": "cock", "saxophone": "sax", "schooner": "schooner", "scorpion": "scorpion",
    "soccer_ball": "soccer ball", "stop_sign": "street sign", "strawberry": "strawberry", "tick": "tick",
    "trilobite": "trilobite", "umbrella": "umbrella", "watch": "digital watch",
}  # fmt: skip


def load() -> ImageSet:
    """All classes, with 31 to 800 images each, and the images of BACKGROUND_Google as distractors.

    Raises `DownloadError` if it is not available.
    """
    folder = download.fetch("caltech101")
    files = image_files(folder)
    folders = [path.parent.name for path in files]
    class_names, labels = numbered(["" if name == BACKGROUND else name for name in folders])
    return ImageSet("caltech101", tuple(files), labels, class_names, root=folder)
