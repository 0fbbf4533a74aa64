// Changes of the gallery. If the service has a key, the user enters it once; it is never stored.

import { call, ServiceError } from "./api.js";
import { askKey } from "./key_field.js";

export class Changes {
  /** mode() → "open", "key" or "off". */
  constructor(mode) {
    this.mode = mode;
    this.key = "";
  }

  /** Send a request with the key; other arguments are those of `call`. */
  async send(path, options) {
    if (this.mode() === "key" && !this.key) this.key = await this.#ask();
    try {
      return await call(path, { ...options, key: this.key });
    } catch (error) {
      if (error.status === 401) this.key = "";
      throw error;
    }
  }

  /** Resolves to the image, and whether it is new: {item, isNew}. */
  async add(file, className, key) {
    this.key = key;
    const body = new FormData();
    body.append("image", file, file.name);
    let isNew = true;
    const onStatus = (status) => { isNew = status === 201; };
    const parameters = { class_name: className };
    const item = await this.send("v1/images", { method: "POST", body, parameters, onStatus });
    return { item, isNew };
  }

  remove = (id) => this.send(`v1/images/${id}`, { method: "DELETE" });

  restore = (id) => this.send(`v1/images/${id}/restore`, { method: "POST" });

  setClass = (id, name) => this.send(`v1/images/${id}`, { method: "PATCH", body: { class_name: name || null } });

  duplicates = () => this.send("v1/duplicates");

  async #ask() {
    const key = await askKey();
    if (!key) throw new ServiceError(401, "Changes need the key of the service.");
    return key;
  }
}
