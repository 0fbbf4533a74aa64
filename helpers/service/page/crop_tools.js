// The controls of the crop box: the button that opens it, exact numbers, and a reset.

import { CropBox, fromFields, percents, toFields } from "./web/crop_box.js";
import { element, hide, on } from "./web/dom.js";

// The first box.
const INITIAL = { left: 0.15, top: 0.15, width: 0.7, height: 0.7 };

export class CropTools {
  /** search(rectangle, or null for the whole image); announce(text) to screen readers. */
  constructor({ search, announce }) {
    this.search = search;
    this.announce = announce;
    this.searched = null;
    this.box = element("crop");
    this.crop = new CropBox(element("stage"), this.box, {
      onChange: (rectangle) => this.#showNumbers(rectangle),
      onDone: (rectangle) => this.#done(rectangle),
    });
    on("crop-open", "click", () => this.#toggle());
    on("crop-reset", "click", () => this.#reset());
    on(this.box, "keydown", (event) => event.key === "Escape" && this.#reset());
    on("crop-form", "input", (event) => this.#readNumbers(event.target));
    on("crop-form", "submit", (event) => {
      event.preventDefault();
      this.#done(this.crop.rectangle);
    });
  }

  /** Show the crop of the query: a rectangle, or null; hasParts: whether the query has other parts. */
  show(searched, hasParts = false) {
    this.searched = searched;
    this.hasParts = hasParts;
    if (searched) this.crop.show(searched);
    else this.crop.hide();
    this.#setOpen(this.#isOpen && searched !== null);
  }

  /** Whether the query image is visible. */
  set enabled(enabled) {
    this.crop.enabled = enabled;
    hide("crop-row", !enabled);
  }

  get #isOpen() {
    return element("crop-open").getAttribute("aria-expanded") === "true";
  }

  #setOpen(open) {
    element("crop-open").setAttribute("aria-expanded", String(open));
    hide("crop-tools", !open);
    hide("crop-reset", !this.crop.visible && !this.hasParts);
    element("query").classList.toggle("cropping", open);
  }

  #toggle() {
    const open = !this.#isOpen;
    if (open && !this.crop.visible) this.crop.show(INITIAL);
    if (!open && !this.searched) this.crop.hide();
    this.#setOpen(open);
    if (open) this.box.focus();
  }

  #reset() {
    const wasSearched = this.searched !== null || this.hasParts;
    this.show(null);
    element("crop-open").focus();
    if (wasSearched) this.search(null);
  }

  #done(rectangle) {
    this.#setOpen(true);
    this.search(rectangle);
  }

  #showNumbers(rectangle) {
    toFields(element("crop-form").elements, rectangle);
    clearTimeout(this.timer);
    if (document.activeElement !== this.box) return;
    this.timer = setTimeout(() => this.announce(percents(rectangle).map((each) => `${each.join(" ")} %`).join(", ")), 400);
  }

  #readNumbers(field) {
    if (field.checkValidity()) this.crop.set(fromFields(element("crop-form").elements));
  }
}
