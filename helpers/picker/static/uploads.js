// Uploaded images: dropped, pasted or chosen files; large ones are shrunk.

import { make } from "./web/dom.js";

// Bytes of an upload; the websocket of a notebook server accepts messages of 10 MB. Larger images are shrunk.
const MAX_UPLOAD = 6e6;
const SHRUNK_SIDE = 2048;

/** The bytes of an image file, shrunk if it is too large; an error says what to do. */
export async function contentOf(file) {
  let content = file;
  if (file.size > MAX_UPLOAD) {
    try {
      content = await shrunk(file);
    } catch {
      throw new Error(`${file.name ?? "This image"} is too large, and the browser cannot shrink it.`);
    }
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

// An upright JPEG with sides of at most SHRUNK_SIDE pixels.
async function shrunk(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SHRUNK_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)) });
  const drawing = canvas.getContext("2d");
  // White behind transparency, as Python does.
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no JPEG"))), "image/jpeg", 0.92));
}
