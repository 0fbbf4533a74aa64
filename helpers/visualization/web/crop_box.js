// The crop box: a rectangle on an image, moved by mouse, touch or keyboard, or by exact numbers. All numbers are
// fractions of the image. The page and the query picker use this module.

import { isModified, make, on } from "./dom.js";
import { place } from "./parts.js";

const MIN_SIZE = 0.05;
const STEP = 0.02;
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const NUMBERS = ["left", "top", "width", "height"];

export const WHOLE = Object.freeze({ left: 0, top: 0, width: 1, height: 1 });

export class CropBox {
  /** onChange(rectangle) during a change; onDone(rectangle) when the pointer is released or Enter is pressed. */
  constructor(stage, box, { onChange, onDone }) {
    Object.assign(this, { stage, box, onChange, onDone });
    this.rectangle = { ...WHOLE };
    this.enabled = false;
    box.append(...HANDLES.map((name) => make("span", { class: `handle ${name}`, "data-handle": name })));
    on(stage, "pointerdown", (event) => this.#startDrag(event));
    // Otherwise the browser drags the image as a file.
    on(stage, "dragstart", (event) => event.preventDefault());
    on(box, "keydown", (event) => this.#keyPressed(event));
  }

  get visible() {
    return !this.box.hidden;
  }

  show(rectangle) {
    this.box.hidden = false;
    this.set(rectangle);
  }

  hide() {
    this.box.hidden = true;
    this.rectangle = { ...WHOLE };
  }

  set(rectangle) {
    this.rectangle = normalized(rectangle);
    place(this.box, this.rectangle);
    this.onChange(this.rectangle);
  }

  #startDrag(event) {
    const onBox = event.target.closest(".crop");
    // Outside the box, touch scrolls the page, and the mouse draws a new box.
    if (!this.enabled || event.button !== 0 || (!onBox && event.pointerType !== "mouse")) return;
    // The button of an object gets the focus.
    if (!event.target.closest("button")) event.preventDefault();
    const frame = this.stage.getBoundingClientRect();
    const position = (each) => [
      clamp((each.clientX - frame.left) / frame.width, 0, 1),
      clamp((each.clientY - frame.top) / frame.height, 0, 1),
    ];
    const [startX, startY] = position(event);
    const before = { ...this.rectangle };
    const wasVisible = this.visible;
    const handle = event.target.dataset.handle ?? (onBox ? "move" : "new");
    let moved = false;
    const move = (each) => {
      const [x, y] = position(each);
      if (!moved && Math.hypot((x - startX) * frame.width, (y - startY) * frame.height) < 4) return;
      // Not before, so that a click reaches the button of an object.
      if (!moved) this.stage.setPointerCapture(event.pointerId);
      moved = true;
      this.show(dragged(handle, before, x, y, startX, startY));
    };
    const listening = new AbortController();
    const end = (each) => {
      listening.abort();
      if (!moved) return;
      if (each.type === "pointerup") this.onDone(this.rectangle);
      else if (wasVisible) this.set(before);
      else this.hide();
    };
    const { signal } = listening;
    on(document, "pointermove", move, { signal });
    for (const name of ["pointerup", "pointercancel"]) on(document, name, end, { signal });
    if (onBox) this.box.focus({ preventScroll: true });
  }

  #keyPressed(event) {
    if (isModified(event)) return;
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== "Enter") return;
    event.preventDefault();
    if (!arrow) return this.onDone(this.rectangle);
    const [dx, dy] = arrow.map((direction) => direction * STEP);
    const { left, top, width, height } = this.rectangle;
    const resized = { width: Math.min(width + dx, 1 - left), height: Math.min(height + dy, 1 - top) };
    this.set({ left, top, width, height, ...(event.shiftKey ? resized : { left: left + dx, top: top + dy }) });
  }
}

/** A rectangle as pairs of a side's name and percents: [["left", 15], …]. */
export const percents = (rectangle) => NUMBERS.map((name) => [name, Math.round(rectangle[name] * 100)]);

/** The rectangle in number fields of percents with the names left, top, width and height, clipped to the image. */
export function fromFields(fields) {
  const [left, top, width, height] = NUMBERS.map((name) => Number(fields[name].value) / 100);
  return { left, top, width: Math.min(width, 1 - left), height: Math.min(height, 1 - top) };
}

/** Show a rectangle in such fields, but not in the one that the user edits. */
export function toFields(fields, rectangle) {
  for (const [name, percent] of percents(rectangle)) {
    if (document.activeElement !== fields[name]) fields[name].value = percent;
  }
}

function dragged(handle, before, x, y, startX, startY) {
  if (handle === "move") {
    return { ...before, left: before.left + x - startX, top: before.top + y - startY };
  }
  if (handle === "new") return between(startX, startY, x, y);
  let [left, top, right, bottom] = [before.left, before.top, before.left + before.width, before.top + before.height];
  if (handle.includes("w")) left = Math.min(x, right - MIN_SIZE);
  if (handle.includes("e")) right = Math.max(x, left + MIN_SIZE);
  if (handle.includes("n")) top = Math.min(y, bottom - MIN_SIZE);
  if (handle.includes("s")) bottom = Math.max(y, top + MIN_SIZE);
  return between(left, top, right, bottom);
}

function between(x1, y1, x2, y2) {
  return { left: Math.min(x1, x2), top: Math.min(y1, y2), width: Math.abs(x2 - x1), height: Math.abs(y2 - y1) };
}

// At least MIN_SIZE wide and high, within the image, and rounded.
function normalized(rectangle) {
  const width = clamp(rectangle.width, MIN_SIZE, 1);
  const height = clamp(rectangle.height, MIN_SIZE, 1);
  const left = round(clamp(rectangle.left, 0, 1 - width));
  const top = round(clamp(rectangle.top, 0, 1 - height));
  return { left, top, width: round(Math.min(width, 1 - left)), height: round(Math.min(height, 1 - top)) };
}

const clamp = (value, min, max) => Math.min(Math.max(value, min), max);
const round = (value) => Math.round(value * 1e4) / 1e4;
