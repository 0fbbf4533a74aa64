// Further images of the query, each with a weight: chips below the query image.

import { hide, on, write } from "./web/dom.js";
import { nameOf, thumbnail } from "./grid.js";

// Weights that can be chosen; a negative one leaves out what the image shows.
const WEIGHTS = [2, 1, 0.5, -0.5, -1, -2];
export const TEXT_WEIGHTS = [4, 2, 1, 0.5, 0.25];

const weightText = (weight) => `${weight < 0 ? "−" : "+"} ${Math.abs(weight)}`;

export class MoreImages {
  /** changed(list of {id, weight}) is called after each change. */
  constructor(list, template, changed) {
    this.list = list;
    this.template = template;
    this.changed = changed;
    on(list, "change", () => this.#send());
    on(list, "click", (event) => {
      if (!event.target.closest(".chip-remove")) return;
      event.target.closest("li").remove();
      this.#send();
    });
  }

  /** also: list of {id, weight}; known: id → image of the gallery, or undefined. */
  show(also, known) {
    hide(this.list, !also.length);
    const itemOf = ({ id }) => known(id) ?? { id, name: `image ${id}` };
    this.list.replaceChildren(...also.map((part) => this.#chip(part, itemOf(part))));
  }

  #chip({ id, weight }, item) {
    const chip = this.template.content.firstElementChild.cloneNode(true);
    chip.dataset.id = id;
    chip.querySelector("img").src = thumbnail(item, 64);
    write(chip.querySelector(".chip-name"), nameOf(item));
    const select = chip.querySelector("select");
    fillWeights(select, WEIGHTS, weight);
    select.setAttribute("aria-label", `Weight of ${nameOf(item)}`);
    chip.querySelector(".chip-remove").setAttribute("aria-label", `Remove ${nameOf(item)} from the query`);
    return chip;
  }

  #send() {
    const part = (chip) => ({ id: Number(chip.dataset.id), weight: Number(chip.querySelector("select").value) });
    this.changed([...this.list.children].map(part));
  }
}

/** The choices of a weight; another weight, of a link, is added. */
export function fillWeights(select, weights, chosen) {
  const choices = weights.includes(chosen) ? weights : [...weights, chosen].sort((a, b) => b - a);
  select.replaceChildren(...choices.map((weight) => new Option(weightText(weight), weight)));
  select.value = String(chosen);
}
