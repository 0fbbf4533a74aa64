// The objects in the query image: a button over each, which adds it to the parts to search with, or removes it.

import { ObjectButtons, outlines } from "./web/parts.js";

// Objects that are shown, and their minimum score; objects of links are always shown.
const MAX_SHOWN = 12;
const MIN_SCORE = 0.3;

const textOf = ({ x, y, width, height }) => [x, y, width, height].join(",");

export class ObjectBoxes {
  /** changed(list of boxes as in url_state.js) is called after each choice. */
  constructor(list, changed) {
    this.chosen = [];
    this.buttons = new ObjectButtons(list, (box) => {
      const others = this.chosen.filter((each) => each !== box);
      this.chosen = others.length < this.chosen.length ? others : [...this.chosen, box];
      this.#draw();
      changed(this.chosen);
    });
  }

  /**
   * Show {width, height, regions} of the service, or null, with the chosen boxes; returns whether there is an object.
   * first: number of the first chosen box among the parts of the query.
   */
  show(found, chosen, first) {
    const others = found === this.found ? this.buttons.keys : [];
    Object.assign(this, { found, chosen, first });
    this.#draw(others);
    return this.buttons.keys.length > 0;
  }

  // others: boxes that stay, because they were shown before.
  #draw(others = this.buttons.keys) {
    const { found, chosen, first } = this;
    const { regions, width, height } = found ?? { regions: [] };
    const names = new Map(regions.map(({ box, class_name: name }) => [textOf(box), name]));
    const likely = regions.filter(({ score }) => score >= MIN_SCORE).slice(0, MAX_SHOWN);
    const texts = new Set(found ? [...others, ...likely.map(({ box }) => textOf(box)), ...chosen] : []);
    this.buttons.show([...texts].map((key) => {
      const [x, y, w, h] = key.split(",").map(Number);
      const name = names.get(key) ?? "part";
      const number = chosen.indexOf(key);
      return {
        key, name, label: `Search with this part: ${name}`, part: number >= 0 ? first + number : null,
        place: { left: x / width, top: y / height, width: w / width, height: h / height },
      };
    }));
  }
}

/** Outlines of the matched parts of a result, to be laid over its image; "" without any. fit: as in web/parts.js. */
export function resultOutlines({ regions = [], width, height }, fit = "meet") {
  const parts = regions.filter(({ box }) => box).map(({ box, part }) => ({ ...box, part }));
  return outlines({ width, height, parts }, fit);
}

/** What matches the query, e.g. "matched: Dog"; "" if whole images were searched. */
export function matchText({ regions = [] }) {
  const names = regions.map(({ box, class_name: name }) => name ?? (box ? "a part" : "the whole image"));
  return names.length ? `matched: ${names.join(", ")}` : "";
}
