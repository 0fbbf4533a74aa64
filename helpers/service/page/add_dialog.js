// The dialog that adds images to the gallery, one after another.

const element = (name) => document.getElementById(`add-${name}`);

export class AddDialog {
  /** add(file, className, key) → promise of the new item; search(item); done() is called after the last file. */
  constructor({ add, search, done }) {
    this.dialog = document.getElementById("add-dialog");
    this.form = element("form");
    this.actions = { add, search, done };
    this.current = null;
    element("close").addEventListener("click", () => this.dialog.close());
    element("files").addEventListener("change", () => this.#showFiles());
    this.form.addEventListener("submit", (event) => this.#submit(event));
  }

  /** current: the query if it is an upload ({file, name}), or null; changes: "open" or "key"; key: entered earlier. */
  open({ current, changes, key, classes }) {
    this.current = current;
    this.form.reset();
    const field = this.form.querySelector(".key");
    field.hidden = changes !== "key";
    this.form.elements.key.disabled = field.hidden;
    this.form.elements.key.value = key;
    document.getElementById("class-names").replaceChildren(...classes.map(({ name }) => new Option(name, name)));
    this.#showStatus("", "");
    this.#showFiles();
    this.dialog.showModal();
  }

  #showFiles() {
    const chosen = element("files").files.length > 0;
    element("current").hidden = !this.current || chosen;
    element("current").textContent = `${this.current?.name} will be added unless you choose other files.`;
    element("files").required = !this.current;
  }

  async #submit(event) {
    event.preventDefault();
    const chosen = [...element("files").files];
    const files = chosen.length ? chosen : [this.current.file];
    const key = this.form.elements.key.value;
    const className = element("class").value.trim();
    element("submit").disabled = true;
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
    element("submit").disabled = false;
    this.#finish(added, failed);
  }

  #finish(added, failed) {
    const text = added.length === 1 ? "1 image was added. " : `${added.length} images were added. `;
    this.#showStatus(added.length ? text : "", failed.join("\n"));
    if (!added.length) return;
    if (!failed.length) this.form.reset();
    this.current = null;
    this.#showFiles();
    const search = document.createElement("button");
    search.type = "button";
    search.textContent = "Search with it";
    search.addEventListener("click", () => {
      this.dialog.close();
      this.actions.search(added.at(-1));
    });
    element("done").append(search);
    search.focus();
    this.actions.done();
  }

  #showStatus(done, error) {
    element("done").textContent = done;
    element("done").hidden = !done;
    element("error").textContent = error;
    element("error").hidden = !error;
  }
}
