// The dialog that adds images to the gallery, one after another.

import { keyField } from "./key_field.js";
import { element, make, on, tell } from "./web/dom.js";
import { plural } from "./web/words.js";

// "2 images were added. ", or "" for none.
const counted = (number, what) => number ? `${plural(number, "image")} ${number === 1 ? "was" : "were"} ${what}. ` : "";

export class AddDialog {
  /** add(file, className, key) → promise of {item, isNew}; search(item); done() is called after the last file. */
  constructor({ add, search, done }) {
    this.dialog = element("add-dialog");
    this.form = element("add-form");
    this.actions = { add, search, done };
    this.current = null;
    on("add-files", "change", () => this.#showFiles());
    on(this.dialog, "dragover", (event) => this.#drag(event, true));
    on(this.dialog, "dragleave", (event) => this.#drag(event, false));
    on(this.dialog, "drop", (event) => {
      this.#drag(event, false);
      if (event.dataTransfer.files.length) element("add-files").files = event.dataTransfer.files;
      this.#showFiles();
    });
    on(this.form, "submit", (event) => this.#submit(event));
  }

  /** current: the query if it is an upload ({file, name}), or null; changes: "open" or "key"; key: entered earlier. */
  open({ current, changes, key }) {
    this.current = current;
    this.form.reset();
    keyField(this.form, changes, key);
    this.#showStatus("", "");
    this.#showFiles();
    this.dialog.showModal();
  }

  #drag(event, over) {
    event.preventDefault();
    element("add-drop").classList.toggle("over", over);
  }

  #showFiles() {
    const adds = this.current && !element("add-files").files.length;
    tell("add-current", adds ? `${this.current.name} will be added unless you choose other files.` : "");
    element("add-files").required = !this.current;
  }

  async #submit(event) {
    event.preventDefault();
    const chosen = [...element("add-files").files];
    const files = chosen.length ? chosen : [this.current.file];
    const key = this.form.elements.key.value;
    const className = element("add-class").value.trim();
    element("add-submit").disabled = true;
    const added = [];
    const failed = [];
    for (const [index, file] of files.entries()) {
      this.#showStatus(files.length > 1 ? `Adding ${index + 1} of ${files.length} …` : "Adding …", "");
      try {
        added.push(await this.actions.add(file, className, key));
      } catch (error) {
        failed.push(`${file.name}: ${error.message}`);
        // The other files would fail in the same way.
        if (error.status === 401 || error.status === 403 || error.status === 0) break;
      }
    }
    element("add-submit").disabled = false;
    this.#finish(added, failed);
  }

  #finish(added, failed) {
    const count = added.filter(({ isNew }) => isNew).length;
    const texts = [counted(count, "added"), counted(added.length - count, "already in the gallery")];
    this.#showStatus(texts.join(""), failed.join("\n"));
    if (!added.length) return;
    if (!failed.length) this.form.reset();
    this.current = null;
    this.#showFiles();
    const onclick = () => {
      this.dialog.close();
      this.actions.search(added.at(-1).item);
    };
    const search = make("button", { type: "button", onclick }, "Search with it");
    element("add-done").append(search);
    search.focus();
    this.actions.done();
  }

  #showStatus(done, error) {
    tell("add-done", done);
    tell("add-error", error);
  }
}
