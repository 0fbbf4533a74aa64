// The tools around the crop box: its button, its numbers, and the way back to the whole image.

import { Crop } from "./crop.js";

// A box to start from.
const MIDDLE = { left: 0.15, top: 0.15, width: 0.7, height: 0.7 };
const NUMBERS = ["left", "top", "width", "height"];

const part = (name) => document.getElementById(`crop-${name}`);

export class CropTools {
  /** search(rectangle, or null for the whole image); say(text), for who can't see the box. */
  constructor({ search, say }) {
    this.search = search;
    this.say = say;
    this.searched = null;
    this.box = document.getElementById("crop");
    this.crop = new Crop(document.getElementById("stage"), this.box, {
      onChange: (rectangle) => this.#showNumbers(rectangle),
      onDone: (rectangle) => this.#done(rectangle),
    });
    part("open").addEventListener("click", () => this.#toggle());
    part("reset").addEventListener("click", () => this.#reset());
    this.box.addEventListener("keydown", (event) => event.key === "Escape" && this.#reset());
    part("form").addEventListener("input", (event) => this.#readNumbers(event.target));
    part("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#done(this.crop.rectangle);
    });
  }

  /** What was searched with: a rectangle, or null for the whole image. */
  show(searched) {
    this.searched = searched;
    if (searched) this.crop.show(searched);
    else this.crop.hide();
    this.#open(this.#isOpen && searched !== null);
  }

  /** Whether there is an image to be seen. */
  set enabled(on) {
    this.crop.enabled = on;
    part("row").hidden = !on;
  }

  get #isOpen() {
    return part("open").getAttribute("aria-expanded") === "true";
  }

  #open(on) {
    part("open").setAttribute("aria-expanded", String(on));
    part("tools").hidden = !on;
    part("reset").hidden = !this.crop.visible;
    document.getElementById("query").classList.toggle("cropping", on);
  }

  #toggle() {
    const on = !this.#isOpen;
    if (on && !this.crop.visible) this.crop.show(MIDDLE);
    if (!on && !this.searched) this.crop.hide();
    this.#open(on);
    if (on) this.box.focus();
  }

  #reset() {
    const wasSearched = this.searched !== null;
    this.show(null);
    part("open").focus();
    if (wasSearched) this.search(null);
  }

  #done(rectangle) {
    this.#open(true);
    this.search(rectangle);
  }

  #showNumbers(rectangle) {
    const fields = part("form").elements;
    const percents = NUMBERS.map((name) => [name, Math.round(rectangle[name] * 100)]);
    for (const [name, percent] of percents) {
      if (document.activeElement !== fields[name]) fields[name].value = percent;
    }
    clearTimeout(this.later);
    if (document.activeElement !== this.box) return;
    this.later = setTimeout(() => this.say(percents.map((each) => `${each.join(" ")} %`).join(", ")), 400);
  }

  #readNumbers(field) {
    if (!field.checkValidity()) return;
    const [left, top, width, height] = NUMBERS.map((name) => Number(part("form").elements[name].value) / 100);
    this.crop.set({ left, top, width: Math.min(width, 1 - left), height: Math.min(height, 1 - top) });
  }
}
