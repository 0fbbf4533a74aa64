// The bars at the bottom of the window: marked results, selected images, and what can be undone.

import { copy, csv, save } from "./export.js";
import { element, hide, on, whileDisabled, write } from "./web/dom.js";
import { BUTTONS, markCounts, plural } from "./web/words.js";

// Images of one ZIP file, as the service accepts them.
const MAX_ZIP = 500;
const COLUMNS = ["rank", "score", "id", "path", "class", "name"];

/** Marks of results; they are applied when the search runs again. */
export class MarksBar {
  /** search(marks): id → true for good; forget(). */
  constructor({ search, forget }) {
    write("marks-search", BUTTONS.again);
    write("marks-clear", BUTTONS.forget);
    on("marks-search", "click", () => search(this.marks));
    on("marks-clear", "click", forget);
  }

  /** applied: whether the results are those of these marks. */
  show(marks, applied) {
    this.marks = marks;
    const good = [...marks.values()].filter(Boolean).length;
    hide("marks-bar", !marks.size && applied);
    write("marks-text", markCounts(good, marks.size - good));
    hide("marks-search", applied);
    hide("marks-clear", !marks.size);
  }
}

/** Selected images, on all pages and of all searches. */
export class SelectionBar {
  /** changed(); shown() → items; remove(items); announce(text). */
  constructor({ changed, shown, remove, announce }) {
    this.items = new Map();
    this.changed = changed;
    on("selection-all", "click", () => {
      for (const item of shown()) this.items.set(item.id, item);
      this.show();
    });
    on("selection-clear", "click", () => this.clear());
    on("selection-csv", "click", () => save("images.csv", csv(this.#rows()), "text/csv"));
    on("selection-paths", "click", async () => {
      const paths = [...this.items.values()].map((item) => item.key).join("\n");
      announce((await copy(paths)) ? `${plural(this.items.size, "path")} copied.` : "The browser did not copy the paths.");
    });
    on("selection-remove", "click", () => remove([...this.items.values()]));
  }

  toggle(item) {
    if (!this.items.delete(item.id)) this.items.set(item.id, item);
    this.show();
  }

  clear() {
    this.items.clear();
    this.show();
  }

  /** Forget an image that no longer exists; another one may take its place. */
  replace(id, item = null) {
    if (!this.items.delete(id)) return;
    if (item) this.items.set(item.id, item);
    this.show();
  }

  show() {
    const { size } = this.items;
    hide("selection-bar", !size);
    write("selection-text", `${size.toLocaleString("en")} selected`);
    const zip = element("selection-zip");
    const ids = [...this.items.keys()].map((id) => `id=${id}`).join("&");
    if (size <= MAX_ZIP) zip.href = `v1/images/export?${ids}`;
    else zip.removeAttribute("href");
    zip.title = size > MAX_ZIP ? `At most ${MAX_ZIP} images` : "";
    this.changed();
  }

  #rows() {
    const row = (item) => [item.rank, item.score, item.id, item.key, item.class_name, item.name];
    return [COLUMNS, ...[...this.items.values()].map(row)];
  }
}

/** What can be undone: the last removal, until this tab is closed or the service has forgotten it. */
export class UndoBar {
  constructor() {
    on("undo-button", "click", () => this.#run());
    on("undo-close", "click", () => hide("undo-bar"));
  }

  /** undo: the action of the button, or null. */
  offer(text, undo) {
    this.undo = undo;
    hide("undo-bar", false);
    write("undo-text", text);
    hide("undo-button", !undo);
  }

  #run() {
    const { undo } = this;
    const run = async () => this.offer(await undo(), null);
    return whileDisabled(element("undo-button"), run, (message) => this.offer(message, undo));
  }
}
