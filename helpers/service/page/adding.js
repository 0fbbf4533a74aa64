// The dialog that adds images to the gallery, one after the other.

const part = (name) => document.getElementById(`adding-${name}`);

export class Adding {
  /** add(file, className, key) → promise of the new item; search(item); done() after the last of them. */
  constructor({ add, search, done }) {
    this.dialog = document.getElementById("adding");
    this.form = part("form");
    this.actions = { add, search, done };
    this.current = null;
    part("close").addEventListener("click", () => this.dialog.close());
    part("files").addEventListener("change", () => this.#sayWhat());
    this.form.addEventListener("submit", (event) => this.#submit(event));
  }

  /** current: the image searched with ({file, name}), or null; changes: "open" or "key"; key: one given before. */
  open({ current, changes, key, classes }) {
    this.current = current;
    this.form.reset();
    const field = this.form.querySelector(".key");
    field.hidden = changes !== "key";
    this.form.elements.key.disabled = field.hidden;
    this.form.elements.key.value = key;
    document.getElementById("class-names").replaceChildren(...classes.map(({ name }) => new Option(name, name)));
    this.#say("", "");
    this.#sayWhat();
    this.dialog.showModal();
  }

  #sayWhat() {
    const chosen = part("files").files.length > 0;
    part("current").hidden = !this.current || chosen;
    part("current").textContent = `Your image ${this.current?.name} is added, unless you choose others.`;
    part("files").required = !this.current;
  }

  async #submit(event) {
    event.preventDefault();
    const chosen = [...part("files").files];
    const files = chosen.length ? chosen : [this.current.file];
    const key = this.form.elements.key.value;
    const className = part("class").value.trim();
    part("submit").disabled = true;
    const added = [];
    const failed = [];
    for (const [at, file] of files.entries()) {
      this.#say(files.length > 1 ? `Adding ${at + 1} of ${files.length} …` : "Adding …", "");
      try {
        added.push(await this.actions.add(file, className, key));
      } catch (error) {
        failed.push(`${file.name}: ${error.message}`);
        // None of the others will be taken either.
        if (error.status === 401 || error.status === 403 || error.status === 0) break;
      }
    }
    part("submit").disabled = false;
    this.#finish(added, failed);
  }

  #finish(added, failed) {
    const words = added.length === 1 ? "1 image was added. " : `${added.length} images were added. `;
    this.#say(added.length ? words : "", failed.join("\n"));
    if (!added.length) return;
    if (!failed.length) this.form.reset();
    this.current = null;
    this.#sayWhat();
    const search = document.createElement("button");
    search.type = "button";
    search.className = "quiet";
    search.textContent = "Search with it";
    search.addEventListener("click", () => {
      this.dialog.close();
      this.actions.search(added.at(-1));
    });
    part("done").append(search);
    search.focus();
    this.actions.done();
  }

  #say(done, error) {
    part("done").textContent = done;
    part("done").hidden = !done;
    part("error").textContent = error;
    part("error").hidden = !error;
  }
}
