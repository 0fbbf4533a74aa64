// Where queries come from: chosen files, the camera, paste, and drag and drop anywhere on the page.

// Uploads that back and forward can still reach; they are kept in this tab's memory alone.
const KEPT = 50;

const part = (id) => document.getElementById(id);
const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

export const isWriting = (target) => target.matches?.("input, textarea, select, [contenteditable]") ?? false;

/** Images that were given, by the names that they have in addresses. */
export class Uploads {
  #kept = new Map();

  has(value) {
    return this.#kept.has(value);
  }

  /** {file, name, url}, the last for an img. */
  get(value) {
    return this.#kept.get(value);
  }

  add(value, file) {
    this.#kept.set(value, { file, name: file.name, url: URL.createObjectURL(file) });
    for (const [oldest, { url }] of this.#kept) {
      if (this.#kept.size <= KEPT) break;
      URL.revokeObjectURL(url);
      this.#kept.delete(oldest);
    }
  }
}

/** actions: file(file, of how many), text(what may be an address), while a person looks at no dialog. */
export function listen({ file, text }) {
  const take = (data) => {
    const files = [...data.files];
    const image = files.find((each) => each.type.startsWith("image/")) ?? files[0];
    if (image) file(image, files.length);
    else text(data.getData("text/uri-list").split("\n")[0] || data.getData("text/plain"));
  };
  listenToPaste(take);
  listenToDrags(take);
  for (const [button, input] of [
    ["choose", "file"],
    ["camera", "camera-file"],
  ]) {
    part(button).addEventListener("click", () => part(input).click());
    part(input).addEventListener("change", () => {
      const [chosen] = part(input).files;
      // Emptied, so that choosing the same file again is a change too.
      part(input).value = "";
      if (chosen) file(chosen, 1);
    });
  }
}

function listenToPaste(take) {
  document.addEventListener("paste", (event) => {
    if (dialogIsOpen() || (isWriting(event.target) && !event.clipboardData.files.length)) return;
    event.preventDefault();
    take(event.clipboardData);
  });
}

function listenToDrags(take) {
  const carries = (event) => ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  // Each element that the drag enters and leaves tells so.
  let inside = 0;
  const veil = (count) => {
    inside = Math.max(count, 0);
    part("veil").hidden = inside === 0;
  };
  document.addEventListener("dragenter", (event) => carries(event) && !dialogIsOpen() && veil(inside + 1));
  document.addEventListener("dragleave", (event) => carries(event) && veil(inside - 1));
  // Whatever is dropped anywhere: a file that misses must not replace the page.
  document.addEventListener("dragover", (event) => carries(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    veil(0);
    if (!carries(event)) return;
    event.preventDefault();
    if (!dialogIsOpen()) take(event.dataTransfer);
  });
}
