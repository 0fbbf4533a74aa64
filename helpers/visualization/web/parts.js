// Parts of an image: outlines of what matches, and buttons over objects. The page and the query picker use this module.

import { make, on, svg, write } from "./dom.js";

/** The look of a part of the query, and of what matches it, by its number: 1, 2, 3, 1, … */
export const partStyle = (number) => ((number - 1) % 3) + 1;

/** Lay an element over a part of its parent: {left, top, width, height} in fractions. */
export function place(element, { left, top, width, height }) {
  for (const [name, value] of Object.entries({ left, top, width, height })) element.style[name] = `${value * 100}%`;
}

/**
 * Outlines of parts, to be laid over an image of the same size; "" without any.
 * parts: [{x, y, width, height, part}] in pixels; part: number of the part of the query, from 1.
 * fit: "meet" if the whole image is shown, "slice" if it fills its frame.
 */
export function outlines({ width, height, parts }, fit = "meet") {
  if (!parts.length || !width) return "";
  const frame = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: `xMidYMid ${fit}` };
  const rectangles = parts.map(({ part, ...box }) => svg("rect", { ...box, "data-part": partStyle(part) }));
  return svg("svg", { ...frame, class: "outlines", "aria-hidden": true }, ...rectangles);
}

/** A button over each object of an image, which adds it to the parts to search with, or removes it. */
export class ObjectButtons {
  /** toggled(key) is called with the key of an object after a click on it. */
  constructor(list, toggled) {
    this.list = list;
    on(list, "click", (event) => {
      const key = event.target.closest("button")?.dataset.box;
      if (key) toggled(key);
    });
  }

  get keys() {
    return [...this.list.children].map((button) => button.dataset.box);
  }

  /**
   * Show objects, large ones first, so that small ones are above them.
   * objects: [{key, name, label, place, part}]; place in fractions; part: number of the part from 1, or null.
   */
  show(objects) {
    const size = ({ place: { width, height } }) => width * height;
    const buttons = new Map([...this.list.children].map((button) => [button.dataset.box, button]));
    const shown = [...objects].sort((a, b) => size(b) - size(a)).map((object) => {
      const button = buttons.get(object.key) ?? make("button", { type: "button" }, make("span"));
      button.dataset.box = object.key;
      button.dataset.part = object.part === null ? "" : partStyle(object.part);
      button.setAttribute("aria-pressed", String(object.part !== null));
      button.setAttribute("aria-label", object.label);
      write(button.firstChild, object.name);
      place(button, object.place);
      return button;
    });
    // The same buttons stay, with the focus.
    const { children } = this.list;
    const same = shown.length === children.length && shown.every((button, index) => button === children[index]);
    if (!same) this.list.replaceChildren(...shown);
  }
}
