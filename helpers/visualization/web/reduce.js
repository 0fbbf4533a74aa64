// Images that are too large to send are reduced in the browser. The page and the query picker use this module.

import { make } from "./dom.js";

const QUALITY = 0.92;
// A JPEG that is still too large is drawn again, at most this often.
const MAX_ATTEMPTS = 6;

/**
 * The file itself, or a smaller JPEG of it if it has too many bytes or pixels; side: of a reduced image, in pixels.
 * A file that this browser cannot decode stays as it is. So the result may still be too large.
 */
export async function reduced(file, { bytes, pixels, side }) {
  const { width, height } = await sizeOf(file);
  if (!width || (file.size <= bytes && width * height <= pixels)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  let scale = Math.min(1, side / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  let blob = null;
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt += 1) {
    blob = await drawn(bitmap, scale);
    if (!blob || blob.size <= bytes) break;
    scale *= Math.min(0.9, Math.sqrt(bytes / blob.size));
  }
  bitmap.close();
  const name = (file.name ?? "image").replace(/\.\w+$/, "");
  return blob ? new File([blob], `${name}.jpg`, { type: "image/jpeg" }) : file;
}

/** The size of an image, which a browser knows before it decodes the pixels; zeros if it cannot decode the file. */
async function sizeOf(file) {
  const image = new Image();
  const url = URL.createObjectURL(file);
  const loaded = new Promise((resolve) => {
    image.onload = image.onerror = resolve;
  });
  image.src = url;
  await loaded;
  URL.revokeObjectURL(url);
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/** An upright JPEG, or null if this browser cannot make one. */
function drawn(bitmap, scale) {
  const side = (length) => Math.max(1, Math.floor(length * scale));
  const canvas = make("canvas", { width: side(bitmap.width), height: side(bitmap.height) });
  const context = canvas.getContext("2d");
  // White behind transparency, as Python does.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}
