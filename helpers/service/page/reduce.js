// Photographs that are too large for the service are reduced in the browser.

const QUALITY = 0.92;
// Only larger files are decoded to count their pixels.
const DECODED = 6e6;

/**
 * The file itself, or a smaller JPEG of it if it has too many bytes or pixels; limits: of /v1/info, side: in pixels.
 * A file that this browser cannot decode stays as it is.
 */
export async function reduced(file, { body_bytes: bytes, pixels }, side) {
  if (file.size <= Math.min(bytes, DECODED)) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  const { width, height } = bitmap;
  if (file.size <= bytes && width * height <= pixels) return file;
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return blob ? new File([blob], file.name.replace(/\.\w+$/, "") + ".jpg", { type: "image/jpeg" }) : file;
}
