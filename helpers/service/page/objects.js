// The objects in the query image: a button over each, which adds it to the parts to search with, or removes it.

import { element, on, write } from "./dom.js";

// Objects that are shown, and their minimum score; objects of links are always shown.
const MAX_SHOWN = 12;
const MIN_SCORE = 0.3;

const textOf = ({ x, y, width, height }) => [x, y, width, height].join(",");

export class ObjectBoxes {
  /** changed(list of boxes as in url_state.js) is called after each choice. */
  constructor(list, changed) {
    this.list = list;
    this.chosen = [];
    on(list, "click", (event) => {
      const box = event.target.closest("button")?.dataset.box;
      if (!box) return;
      const others = this.chosen.filter((each) => each !== box);
      this.#choose(others.length < this.chosen.length ? others : [...others, box]);
      changed(this.chosen);
    });
  }

  /**
   * Show {width, height, regions} of the service, or null, with the chosen boxes; returns whether there is an object.
   * first: number of the first chosen box among the parts of the query.
   */
  show(found, chosen, first) {
    this.first = first;
    const shown = [...this.list.children].map((button) => button.dataset.box);
    // Otherwise the buttons stay, with the focus.
    if (found !== this.found || !chosen.every((box) => shown.includes(box))) this.#draw(found, chosen);
    this.found = found;
    this.#choose(chosen);
    return this.list.children.length > 0;
  }

  #draw(found, chosen) {
    const { regions, width, height } = found ?? { regions: [] };
    const names = new Map(regions.map(({ box, class_name: name }) => [textOf(box), name]));
    const likely = regions.filter(({ score }) => score >= MIN_SCORE).slice(0, MAX_SHOWN);
    const texts = new Set([...likely.map(({ box }) => textOf(box)), ...(found ? chosen : [])]);
    const boxes = [...texts].map((text) => [text, ...text.split(",").map(Number)]);
    // Small ones last, so that they are above large ones.
    boxes.sort((a, b) => b[3] * b[4] - a[3] * a[4]);
    const buttons = boxes.map(([text, x, y, w, h]) => {
      const button = element("object").content.firstElementChild.cloneNode(true);
      const name = names.get(text) ?? "part";
      button.dataset.box = text;
      button.setAttribute("aria-label", `Search with this part: ${name}`);
      write(button.firstElementChild, name);
      place(button, { left: x / width, top: y / height, width: w / width, height: h / height });
      return button;
    });
    this.list.replaceChildren(...buttons);
  }

  #choose(chosen) {
    this.chosen = chosen;
    for (const button of this.list.children) {
      const number = chosen.indexOf(button.dataset.box);
      button.setAttribute("aria-pressed", String(number >= 0));
      button.dataset.part = number >= 0 ? partStyle(this.first + number) : "";
    }
  }
}

/** The look of a part of the query, and of what matches it, by its number: 1, 2, 3, 1, … */
export const partStyle = (number) => ((number - 1) % 3) + 1;

/** Lay an element over a part of its parent, in fractions. */
export function place(element, rectangle) {
  for (const [name, value] of Object.entries(rectangle)) element.style[name] = `${value * 100}%`;
}

function svg(name, attributes) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) drawn.setAttribute(attribute, value);
  return drawn;
}

/** Outlines of the matched parts of a result, to be laid over its image; "" without any. fit: "meet" or "slice". */
export function outlines({ regions = [], width, height }, fit = "meet") {
  const matched = regions.filter(({ box }) => box && width);
  if (!matched.length) return "";
  const frame = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: `xMidYMid ${fit}` };
  const drawing = svg("svg", { ...frame, class: "outlines", "aria-hidden": true });
  drawing.append(...matched.map(({ box, part }) => svg("rect", { ...box, "data-part": partStyle(part) })));
  return drawing;
}

/** What matches the query, e.g. "matched: Dog"; "" if whole images were searched. */
export function matchText({ regions = [] }) {
  const names = regions.map(({ box, class_name: name }) => name ?? (box ? "a part" : "the whole image"));
  return names.length ? `matched: ${names.join(", ")}` : "";
}
