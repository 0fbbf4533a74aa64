// The crop box: a rectangle on an image, moved by mouse, touch or keyboard. All numbers are fractions of the image.

const MIN_SIZE = 0.05;
const STEP = 0.02;
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const WHOLE = Object.freeze({ left: 0, top: 0, width: 1, height: 1 });

export class CropBox {
  /** onChange(rectangle) during a change; onDone(rectangle) when the pointer is released or Enter is pressed. */
  constructor(stage, box, { onChange, onDone }) {
    Object.assign(this, { stage, box, onChange, onDone });
    this.rectangle = { ...WHOLE };
    this.enabled = false;
    for (const name of HANDLES) {
      const handle = document.createElement("span");
      handle.className = `handle ${name}`;
      handle.dataset.handle = name;
      box.append(handle);
    }
    stage.addEventListener("pointerdown", (event) => this.#startDrag(event));
    // Otherwise the browser drags the image as a file.
    stage.addEventListener("dragstart", (event) => event.preventDefault());
    box.addEventListener("keydown", (event) => this.#keyPressed(event));
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
    const { left, top, width, height } = this.rectangle;
    Object.assign(this.box.style, {
      left: `${left * 100}%`,
      top: `${top * 100}%`,
      width: `${width * 100}%`,
      height: `${height * 100}%`,
    });
    this.onChange(this.rectangle);
  }

  #startDrag(event) {
    const onBox = event.target.closest(".crop");
    // Outside the box, touch scrolls the page, and the mouse draws a new box.
    if (!this.enabled || event.button !== 0 || (!onBox && event.pointerType !== "mouse")) return;
    event.preventDefault();
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
      moved = true;
      this.show(dragged(handle, before, x, y, startX, startY));
    };
    const end = (each) => {
      this.stage.removeEventListener("pointermove", move);
      this.stage.removeEventListener("pointerup", end);
      this.stage.removeEventListener("pointercancel", end);
      if (!moved) return;
      if (each.type === "pointerup") this.onDone(this.rectangle);
      else if (wasVisible) this.set(before);
      else this.hide();
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", end);
    this.stage.addEventListener("pointercancel", end);
    if (onBox) this.box.focus({ preventScroll: true });
  }

  #keyPressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      event.preventDefault();
      this.onDone(this.rectangle);
      return;
    }
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const [dx, dy] = arrow.map((direction) => direction * STEP);
    const { left, top, width, height } = this.rectangle;
    this.set(
      event.shiftKey
        ? { left, top, width: clamp(width + dx, MIN_SIZE, 1 - left), height: clamp(height + dy, MIN_SIZE, 1 - top) }
        : { left: clamp(left + dx, 0, 1 - width), top: clamp(top + dy, 0, 1 - height), width, height },
    );
  }
}

function dragged(handle, before, x, y, startX, startY) {
  if (handle === "move") {
    return {
      ...before,
      left: clamp(before.left + x - startX, 0, 1 - before.width),
      top: clamp(before.top + y - startY, 0, 1 - before.height),
    };
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
  return { left, top, width: roundWithin(width, 1 - left), height: roundWithin(height, 1 - top) };
}

// Rounded down if rounding would cross the edge.
const roundWithin = (value, max) => (round(value) > max ? Math.floor(max * 1e4) / 1e4 : round(value));
const clamp = (value, min, max) => Math.min(Math.max(value, min), max);
const round = (value) => Math.round(value * 1e4) / 1e4;
