"""Edits of a gallery: removing images, restoring them, and changing their class."""

import numpy as np

from helpers.search.identity import Candidates
from helpers.search.persist.live import LiveEngine
from helpers.service import uploads
from helpers.service.errors import ApiError, no_image
from helpers.service.gallery_search import engine_with
from helpers.service.removed_images import RemovedImage, RemovedImages


class GalleryEdits:
    """Edits of one live engine.

    Images of an engine do not change: an image in another class, and a restored one, get a new id, as if the file had
    been removed and added again. Their feature vectors are kept.

    removed : the images that can be restored.
    """

    def __init__(self, live: LiveEngine):
        self._live, self.removed = live, RemovedImages(live.folder)

    def remove(self, id: int) -> None:
        """Remove an image. It can be restored for an hour; then the file of an upload is deleted.

        Raises ApiError: 404, the image does not exist.
        """
        image = self._image(id)
        self.removed.put(image)
        try:
            self._live.remove([id])
        except KeyError as error:
            raise no_image(id) from error
        if uploads.is_upload(self._live.folder, image.path):
            # Meanwhile, another client may have added the same image again.
            with self._live.locked():
                engine = self._live.engine
                if not engine.index.contains(np.array(engine.table.ids_at(image.path), np.int64)).any():
                    self.removed.take_file(image)

    def restore(self, id: int) -> int:
        """Add a removed image again; returns its new id.

        Raises ApiError: 404, it was not removed, or it was removed too long ago, or its file was deleted.
        """
        image = self.removed.get(id)
        self._live.refresh()
        if image is None or self._live.engine.index.contains(np.array([id]))[0]:
            message = f"Image {id} cannot be restored: it was not removed, or was removed too long ago."
            raise ApiError(404, message, code="image_not_found")
        if not self.removed.has_file(image):
            raise ApiError(404, f"Image {id} cannot be restored: its file was deleted.", code="file_not_found")
        added = self._live.add_extracted(
            [image.path], image.vector[None], [image.class_name], [image.content], [image.name],
            write=lambda: self.removed.return_file(image),
        )  # fmt: skip
        self.removed.forget(id)
        return int(added.ids[0])

    def set_class(self, id: int, class_name: str | None) -> int:
        """Change the class of an image; returns its new id, or the same one if the class does not change.

        class_name : None for no class.

        Raises ApiError: 404, the image does not exist.
        """
        image = self._image(id)
        if image.class_name == class_name:
            return id
        candidates = Candidates(
            [str(image.path)], [image.content], [class_name], [image.name], image.vector[None], np.array([-1])
        )
        # An image without a known content is not recognized by its path.
        removed = [id] if image.content is None else []
        return int(self._live.apply(candidates, removed, classes=True).ids[0])

    def _image(self, id: int) -> RemovedImage:
        engine = engine_with(self._live, id)
        table = engine.table
        path, name = table.path(id), table.display_name(id)
        vector = engine.index.vectors(np.array([id]))[0].astype(np.float32)
        return RemovedImage(
            id, path, table.class_name(id), vector, table.content(id), None if name == path.name else name
        )
