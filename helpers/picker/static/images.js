// The images of the picker: requested from Python by their keys, with a bounded cache.

const MAX_URLS = 500;

export class Images {
  constructor(send, root) {
    this.send = send;
    this.root = root;
    this.urls = new Map();
    this.requested = new Set();
    this.queued = new Set();
  }

  put(image, key) {
    if (image.dataset.key === key) return;
    image.dataset.key = key;
    if (this.urls.has(key)) image.src = this.urls.get(key);
    else {
      image.removeAttribute("src");
      this.request(key);
    }
  }

  request(key) {
    if (this.requested.has(key)) return;
    if (!this.queued.size) {
      queueMicrotask(() => {
        this.send({ images: [...this.queued] });
        this.queued.clear();
      });
    }
    this.requested.add(key);
    this.queued.add(key);
  }

  received(key, content) {
    this.requested.delete(key);
    const images = [...this.root.querySelectorAll("img")].filter((image) => image.dataset.key === key);
    for (const image of images) image.classList.toggle("missing", !content);
    if (!content) return;
    const url = URL.createObjectURL(new Blob([content], { type: "image/jpeg" }));
    if (this.urls.has(key)) URL.revokeObjectURL(this.urls.get(key));
    this.urls.set(key, url);
    for (const image of images) image.src = url;
    this.evict();
  }

  evict() {
    if (this.urls.size <= MAX_URLS) return;
    const shown = new Set([...this.root.querySelectorAll("img")].map((image) => image.dataset.key));
    for (const key of [...this.urls.keys()].slice(0, this.urls.size - MAX_URLS)) {
      if (shown.has(key)) continue;
      URL.revokeObjectURL(this.urls.get(key));
      this.urls.delete(key);
    }
  }

  close() {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
  }
}
