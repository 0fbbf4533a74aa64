// The dialog with the near-duplicates of the gallery: groups of copies, of which all but the best are proposed to go.

import { nameOf, thumbnail } from "./grid.js";
import { fileSize } from "./text.js";
import { element, hide, make, on, tell, whileDisabled, write } from "./web/dom.js";
import { NO_CLASS, plural } from "./web/words.js";

const SECONDS = 1;
// Groups that are shown at once.
const MOST = 100;
const HOW = {
  bytes: "identical file", hash: "the same image, saved or resized again", mirror: "mirrored", crop: "a crop",
};

export class DuplicatesDialog {
  /** find() → promise of {state, groups}; remove(items) → promise; total() → number of images. */
  constructor({ find, remove, total }) {
    this.dialog = element("duplicates");
    this.actions = { find, remove, total };
    on("open-duplicates", "click", () => this.open());
    on("duplicates-remove", "click", () => this.#remove());
    on("duplicates-list", "change", () => this.#count());
  }

  async open() {
    element("duplicates-list").replaceChildren();
    this.groups = [];
    this.#count();
    tell("duplicates-error", "");
    write("duplicates-text", `Comparing ${plural(this.actions.total(), "image")} …`);
    if (!this.dialog.open) this.dialog.showModal();
    try {
      let found = await this.actions.find();
      while (found.state === "running" && this.dialog.open) {
        await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
        found = await this.actions.find();
      }
      if (this.dialog.open) this.#show(found.groups.map((group) => group.images));
    } catch (error) {
      write("duplicates-text", "");
      tell("duplicates-error", error.message);
    }
  }

  #show(groups) {
    this.groups = groups.slice(0, MOST);
    const copies = groups.reduce((sum, group) => sum + group.length - 1, 0);
    const more = groups.length > MOST ? ` The first ${MOST} groups are shown.` : "";
    const found = `${plural(groups.length, "image")} with ${plural(copies, "copy").replace("copys", "copies")}. Ticked images will be removed.`;
    write("duplicates-text", groups.length ? found + more : "No near-duplicates were found.");
    element("duplicates-list").replaceChildren(...this.groups.map((group, number) => this.#group(group, number)));
    this.#count();
  }

  #group(group, number) {
    const given = { class: "copies", "aria-label": `Group ${number + 1}` };
    return make("ul", given, ...group.map((item) => this.#copy(item)));
  }

  #copy(item) {
    const copy = element("copy").content.firstElementChild.cloneNode(true);
    const part = (selector) => copy.querySelector(selector);
    part("img").src = thumbnail(item, 256);
    part("input").checked = !item.keep;
    part("input").value = item.id;
    write(part(".copy-name"), nameOf(item));
    const size = item.width ? `${item.width} × ${item.height}, ${fileSize(item.bytes)}` : "cannot be read";
    write(part(".copy-facts"), [size, item.class_name ?? NO_CLASS, HOW[item.how]].filter(Boolean).join(" · "));
    part(".copy-facts").title = item.key;
    hide(part(".copy-best"), !item.keep);
    return copy;
  }

  get #ticked() {
    const ids = new Set([...this.dialog.querySelectorAll("#duplicates-list :checked")].map((input) => Number(input.value)));
    return this.groups.flat().filter((item) => ids.has(item.id));
  }

  #count() {
    const { length } = this.#ticked;
    const button = element("duplicates-remove");
    hide(button, !length);
    write(button, `Remove ${plural(length, "image")}`);
  }

  #remove() {
    const remove = async () => {
      await this.actions.remove(this.#ticked);
      this.dialog.close();
    };
    return whileDisabled(element("duplicates-remove"), remove, (message) => tell("duplicates-error", message));
  }
}
