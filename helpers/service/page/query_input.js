// Input of query images: chosen files, the camera, paste, and drag and drop anywhere on the page.

import { element, hide, on } from "./web/dom.js";

// Number of uploads kept in the memory of this tab, for back and forward.
const MAX_UPLOADS = 50;

const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

export const isTextField = (target) => target.matches?.("input, textarea, select, [contenteditable]") ?? false;

/** Uploaded images by their names in the URL: {file, name, url}; url is the src of an img. */
export class Uploads extends Map {
  add(value, file) {
    this.set(value, { file, name: file.name, url: URL.createObjectURL(file) });
    for (const [oldest, { url }] of this) {
      if (this.size <= MAX_UPLOADS) break;
      URL.revokeObjectURL(url);
      this.delete(oldest);
    }
  }
}

/** Calls file(file, number of files) or text(text, possibly a URL) for each input, unless a dialog is open. */
export function listen({ file, text }) {
  const take = (data) => {
    const files = [...data.files];
    const image = files.find((each) => each.type.startsWith("image/")) ?? files[0];
    if (image) file(image, files.length);
    else text(data.getData("text/uri-list").split("\n")[0] || data.getData("text/plain"));
  };
  listenToPaste(take);
  listenToDrags(take);
  for (const [button, input] of Object.entries({ choose: "file", camera: "camera-file" })) {
    on(button, "click", () => element(input).click());
    on(input, "change", () => {
      const [chosen] = element(input).files;
      // Reset, so that choosing the same file again is a change event.
      element(input).value = "";
      if (chosen) file(chosen, 1);
    });
  }
}

function listenToPaste(take) {
  on(document, "paste", (event) => {
    if (dialogIsOpen() || (isTextField(event.target) && !event.clipboardData.files.length)) return;
    event.preventDefault();
    take(event.clipboardData);
  });
}

function listenToDrags(take) {
  const hasImage = (event) => ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  // Every element that the drag enters or leaves sends an event.
  let depth = 0;
  const setDepth = (count) => {
    depth = Math.max(count, 0);
    hide("drop-overlay", depth === 0);
  };
  on(document, "dragenter", (event) => hasImage(event) && !dialogIsOpen() && setDepth(depth + 1));
  on(document, "dragleave", (event) => hasImage(event) && setDepth(depth - 1));
  // Anywhere on the page: otherwise the browser opens a dropped file instead of the page.
  on(document, "dragover", (event) => hasImage(event) && event.preventDefault());
  on(document, "drop", (event) => {
    setDepth(0);
    if (!hasImage(event)) return;
    event.preventDefault();
    if (!dialogIsOpen()) take(event.dataTransfer);
  });
}
