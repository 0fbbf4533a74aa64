// Uploaded images: dropped, pasted or chosen files; large ones are reduced.

import { reduced } from "./web/reduce.js";
import { megabytes } from "./web/words.js";

// The websocket of a notebook server accepts messages of 10 MB, and Python images of 100 megapixels.
const LIMITS = { bytes: 6e6, pixels: 100e6, side: 2048 };

/** The bytes of an image file, reduced if it is too large; an error says what to do. */
export async function contentOf(file) {
  const content = await reduced(file, LIMITS);
  if (content.size > LIMITS.bytes) {
    throw new Error(`${file.name ?? "This image"} is larger than ${megabytes(LIMITS.bytes)}, and the browser cannot reduce it.`);
  }
  return content.arrayBuffer();
}

/** The image in the clipboard; an error says why there is none. */
export async function copiedImage() {
  let items;
  try {
    items = await navigator.clipboard.read();
  } catch {
    throw new Error("The browser blocks access to the clipboard. Press Ctrl+V (⌘V) here instead.");
  }
  for (const item of items) {
    const type = item.types.find((name) => name.startsWith("image/"));
    if (type) return item.getType(type);
  }
  throw new Error("There is no image in the clipboard.");
}

/** Calls file(file, whether it was pasted) for files that are dropped on an element or pasted there; else fail(text). */
export function acceptFiles(root, { file: accepted, fail }) {
  const over = (event) => {
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("over", event.type !== "dragleave" || root.contains(event.relatedTarget));
  };
  for (const kind of ["dragenter", "dragover", "dragleave"]) root.addEventListener(kind, over);
  const accept = (event, data) => {
    const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/")) ?? data?.files?.[0];
    if (file) {
      event.preventDefault();
      event.stopPropagation();
      accepted(file, event.type === "paste");
    }
    return Boolean(file);
  };
  root.addEventListener("drop", (event) => {
    root.classList.remove("over");
    if (!accept(event, event.dataTransfer)) {
      event.preventDefault();
      event.stopPropagation();
      fail("Only files can be dropped here. Save the image first, then drop its file.");
    }
  });
  root.addEventListener("paste", (event) => accept(event, event.clipboardData));
}
