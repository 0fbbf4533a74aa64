// The query picker's page. It shows the state that Python sends as JSON and sends user actions back; it makes no
// decisions. Elements are created once and changed in place, which keeps the focus.

const SIGNS = new Map([[true, "○"], [false, "✗"]]);
const RELEVANCE = new Map([[true, "relevant"], [false, "not relevant"]]);
// Bytes of an upload; the websocket of a notebook server accepts messages of 10 MB. Larger images are shrunk.
const MAX_UPLOAD = 6e6;
const SHRUNK_SIDE = 2048;
// Milliseconds: arrow keys in a list of options start no search for the options that they pass.
const PAUSE = 350;
const MAX_URLS = 500;
// Pixels: a shorter move of the pointer on an object is a click.
const DRAG = 4;
const WEIGHT_STEP = "0.25";
const ONE_IMAGE = "Re-ranking works for one image, not with a text or several images.";

let instances = 0;

function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Setting the same text again would make a screen reader repeat a live region.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function isDark(element) {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (blue !== undefined && alpha > 0.5) return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// The look of a part of the query, and of what matches it: 1, 2, 3, 1, …
const partStyle = (number) => (number % 3) + 1;

// Lay an element over a part of its parent, in fractions.
function place(element, rectangle) {
  for (const side of ["left", "top", "width", "height"]) element.style[side] = `${100 * rectangle[side]}%`;
}

// Outline boxes (x, y, width, height in fractions, or null) on an image that fits into a drawing of the same size.
function outline(drawing, image, boxes) {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const key = JSON.stringify([width, height, boxes]);
  if (drawing.dataset.key === key) return;
  drawing.dataset.key = key;
  drawing.replaceChildren();
  if (!width || !image.hasAttribute("src")) return;
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  boxes.forEach((box, number) => {
    if (!box) return;
    const rectangle = document.createElementNS(drawing.namespaceURI, "rect");
    const [x, y, across, down] = box;
    const sides = { x: x * width, y: y * height, width: across * width, height: down * height };
    for (const [name, value] of Object.entries(sides)) rectangle.setAttribute(name, value);
    rectangle.dataset.part = partStyle(number);
    drawing.append(rectangle);
  });
}

// ---- images: requested by their keys, with a bounded cache ------------------------------------------------------

class Images {
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

// ---- one line on hover and focus; Escape hides it ------------------------------------------------------------------

class Tip {
  constructor(root, id) {
    this.root = root;
    this.box = make("div", { class: "tip", role: "tooltip", id, hidden: true });
    root.append(this.box);
    const over = (event) => {
      if (this.box.contains(event.target)) return clearTimeout(this.later);
      const owner = event.target.closest("[data-tip]");
      if (owner) this.show(owner);
      else this.hideSoon();
    };
    root.addEventListener("pointerover", over);
    root.addEventListener("pointerleave", () => this.hideSoon());
    root.addEventListener("focusin", (event) => {
      const owner = event.target.closest("[data-tip]");
      if (owner && owner.matches(":focus-visible")) this.show(owner);
      else this.hide();
    });
    root.addEventListener("focusout", () => this.hide());
    root.addEventListener("input", () => this.hide());
    root.addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
  }

  show(owner) {
    clearTimeout(this.later);
    if (this.owner !== owner) this.hide();
    this.owner = owner;
    this.box.textContent = owner.dataset.tip;
    this.box.hidden = false;
    owner.setAttribute("aria-describedby", this.box.id);
    const [around, at] = [this.root.getBoundingClientRect(), owner.getBoundingClientRect()];
    const left = Math.min(at.left - around.left, around.width - this.box.offsetWidth - 4);
    this.box.style.left = `${Math.max(0, left)}px`;
    this.box.style.top = `${at.bottom - around.top + 2}px`;
  }

  // The owner may show another image now.
  refresh() {
    if (this.owner) this.show(this.owner);
  }

  hideSoon() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.hide(), 150);
  }

  hide() {
    clearTimeout(this.later);
    this.owner?.removeAttribute("aria-describedby");
    this.owner = null;
    this.box.hidden = true;
  }
}

// ---- the parts of the page ----------------------------------------------------------------------------------------

class Page {
  constructor(model, element) {
    this.model = model;
    this.number = ++instances;
    this.name = Math.random().toString(36).slice(2);
    this.sent = 0;
    this.state = {};
    this.timers = new Map();
    this.root = make("section", {
      class: "lookalike-picker",
      "aria-label": "Query picker",
    });
    this.images = new Images((message) => model.send(message), this.root);
    this.tip = new Tip(this.root, this.id("tip"));
    this.root.prepend(
      this.statusLine(),
      make("div", { class: "top" }, this.queryPart(), this.chooserPart()),
      this.describePart(),
      this.settingsPart(),
      this.resultsPart(),
      this.whyPart(),
    );
    this.acceptFiles();
    // In JupyterLab, Enter in a field does not submit its form.
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.target.matches("form input:not([type=checkbox])")) return;
      event.preventDefault();
      event.target.form.requestSubmit();
    });
    element.append(this.root);
    this.followTheme();
    // JupyterLab uses letters, arrows and Enter as commands unless the focused element has this attribute. It listens at
    // the document. Commands with Ctrl (save, run) still work.
    this.onKey = (event) => {
      if (!this.root.contains(event.target)) return;
      event.target.toggleAttribute("data-lm-suppress-shortcuts", !event.ctrlKey && !event.metaKey);
    };
    window.addEventListener("keydown", this.onKey, true);
    this.onState = () => this.update();
    this.onMessage = (message, buffers) => this.received(message, buffers);
    model.on("change:state", this.onState);
    model.on("msg:custom", this.onMessage);
    this.update();
  }

  close() {
    this.model.off("change:state", this.onState);
    this.model.off("msg:custom", this.onMessage);
    window.removeEventListener("keydown", this.onKey, true);
    this.watching.disconnect();
    this.timers.forEach(clearTimeout);
    this.images.close();
  }

  id(name) {
    return `lookalike-picker-${this.number}-${name}`;
  }

  do(action, given = {}, content = undefined) {
    this.local = null;
    this.sent += 1;
    const message = { action, arguments: given, view: this.name, number: this.sent };
    this.model.send(message, undefined, content ? [content] : []);
    this.updateStatus();
  }

  // Whether Python has not yet finished an action: the kernel may be running a cell.
  get waiting() {
    return (this.state.done[this.name] ?? 0) < this.sent;
  }

  later(name, action) {
    clearTimeout(this.timers.get(name));
    this.timers.set(name, setTimeout(() => {
      this.timers.delete(name);
      action();
    }, PAUSE));
  }

  received(message, buffers) {
    if ("image" in message) this.images.received(message.image, message.found ? buffers[0] : null);
    if ("file" in message) {
      const type = message.kind === "csv" ? "text/csv" : "image/png";
      const url = URL.createObjectURL(new Blob([buffers[0]], { type }));
      // All views of the picker receive the file; the one that requested it saves it.
      if (this.exporting) make("a", { href: url, download: message.file }).click();
      this.exporting = false;
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    }
  }

  followTheme() {
    const set = () => this.root.setAttribute("data-theme", isDark(this.root.parentElement) ? "dark" : "light");
    this.watching = new MutationObserver(set);
    this.watching.observe(document.body, { attributes: true });
    // The background color is known once the element is in the page.
    requestAnimationFrame(set);
    setTimeout(set, 500);
  }

  button(text, action, given = {}) {
    return make("button", { type: "button", onclick: action, ...given }, text);
  }

  field(label, control) {
    control.id ||= this.id(`field-${++this.fields || (this.fields = 1)}`);
    return make("div", { class: "field" }, make("label", { for: control.id }, label), control);
  }

  // ---- status ----

  statusLine() {
    this.spinner = make("span", { class: "spinner", "aria-hidden": "true" });
    this.status = make("span", { role: "status" });
    this.alert = make("span", { class: "error", role: "alert" });
    this.hint = make("span", { class: "dim hint" });
    return make("p", { class: "status" }, this.spinner, this.alert, this.status, this.hint);
  }

  updateStatus() {
    const { message, searching, progress, columns, query, text_hint: hint } = this.state;
    const busy = searching || progress !== "" || this.waiting;
    this.root.classList.toggle("busy", busy);
    const error = this.local ?? (message?.kind === "error" ? message.text : "");
    const relevant = columns.map(({ results }) => {
      const known = results.filter((result) => result.relevant !== null);
      return known.length ? `${known.filter((result) => result.relevant).length} of ${known.length} relevant` : "";
    });
    const found = columns.length
      ? `${columns[0].results.length} results for ${query.title}${relevant[0] && `, ${relevant.join(" and ")}`}.`
      : query === null ? `Choose an image as the query${hint ? "" : ", or describe what to find"}.` : "";
    const note = message?.kind === "note" ? `${message.text} ` : "";
    setText(this.alert, error);
    setText(this.status, searching || progress ? progress || "Searching …" : error ? "" : note + found);
    setText(this.hint, hint);
  }

  // ---- the query ----

  queryPart() {
    this.image = make("img", { class: "query", alt: "", draggable: "false" });
    this.rectangle = make("div", { class: "rectangle", hidden: true });
    this.objects = make("div", { role: "group", "aria-label": "Objects in the query image" });
    this.frame = make("div", { class: "frame" }, this.image, this.rectangle, this.objects);
    this.findButton = this.button("Find objects", () => this.do("find_objects"));
    this.empty = make("p", { class: "empty" }, "No query yet");
    this.queryName = make("p", { class: "name" });
    this.backButton = this.button("← Back", () => this.do("back"));
    this.forwardButton = this.button("Forward →", () => this.do("forward"));
    this.position = make("span", { class: "dim" });
    this.cropInputs = ["Left", "Top", "Width", "Height"].map((name) =>
      make("input", { type: "number", min: "0", max: "100", step: "1", name: name.toLowerCase(), value: "0" }));
    const apply = (event) => {
      event.preventDefault();
      const [left, top, width, height] = this.cropInputs.map((input) => input.valueAsNumber / 100);
      this.do("crop", { left, top, width, height });
    };
    this.cropForm = make("form", { class: "crop", noValidate: true, onsubmit: apply },
      make("div", { class: "four" }, ...this.cropInputs.map((input) => this.field(`${input.name} %`, input))),
      make("div", { class: "line" }, make("button", { type: "submit" }, "Crop"),
        this.wholeButton = this.button("Whole image", () => this.do("uncrop"))));
    this.drawCrop();
    return make("div", { class: "query-part" },
      make("h3", {}, "Query"), this.empty, this.frame, this.queryName,
      make("div", { class: "line" }, this.backButton, this.forwardButton, this.position),
      this.findButton,
      this.cropDetails = make("details", {},
        make("summary", {}, "Crop: drag on the image, or enter numbers"), this.cropForm));
  }

  drawCrop() {
    let start = null;
    let [downX, downY] = [0, 0];
    const at = (event) => {
      const box = this.image.getBoundingClientRect();
      const part = (value, from, length) => Math.min(1, Math.max(0, (value - from) / length));
      return [part(event.clientX, box.left, box.width), part(event.clientY, box.top, box.height)];
    };
    const box = ([x, y]) => ({
      left: Math.min(start[0], x), top: Math.min(start[1], y),
      width: Math.abs(start[0] - x), height: Math.abs(start[1] - y),
    });
    this.frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.image.hasAttribute("src")) return;
      event.preventDefault();
      start = at(event);
      [downX, downY] = [event.clientX, event.clientY];
      // A click on an object must reach its button; a drag may start there.
      if (!event.target.closest("button")) this.frame.setPointerCapture(event.pointerId);
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (!start || (!event.buttons && event.pointerType === "mouse")) return;
      if (!this.frame.hasPointerCapture(event.pointerId)) {
        if (Math.hypot(event.clientX - downX, event.clientY - downY) < DRAG) return;
        this.frame.setPointerCapture(event.pointerId);
      }
      this.showRectangle(box(at(event)));
    });
    this.frame.addEventListener("pointerup", (event) => {
      if (!start) return;
      const crop = box(at(event));
      start = null;
      // A click is not a crop.
      if (crop.width < 0.02 || crop.height < 0.02) this.showRectangle(this.state.query?.crop);
      else this.do("crop", crop);
    });
    this.frame.addEventListener("pointercancel", () => {
      start = null;
      this.showRectangle(this.state.query?.crop);
    });
  }

  showRectangle(crop) {
    this.rectangle.hidden = !crop;
    if (crop) place(this.rectangle, crop);
  }

  // A button over each object of the query image, which adds it to the parts to search with, or removes it.
  updateObjects() {
    const { query } = this.state;
    const objects = query?.image ? query.objects : [];
    this.findButton.hidden = !query?.image;
    this.findButton.setAttribute("aria-disabled", Boolean(query?.searched_objects));
    const buttons = new Map([...this.objects.children].map((button) => [button.dataset.box, button]));
    const shown = objects.map((object) => {
      const button = buttons.get(object.box.join()) ?? this.button(make("span"), () => this.toggleBox(button.dataset.box));
      const { place: rectangle, class_name: name, score, part } = object;
      button.dataset.box = object.box.join();
      button.dataset.part = part === null ? "" : partStyle(part);
      button.setAttribute("aria-pressed", part !== null);
      button.setAttribute("aria-label", score === null ? `Search with this ${name}` : `Search with ${name}, score ${score.toFixed(2)}`);
      setText(button.firstChild, name);
      place(button, rectangle);
      return button;
    });
    // The same buttons stay, with the focus.
    const same = shown.length === this.objects.children.length && shown.every((button) => button.parentNode === this.objects);
    if (!same) this.objects.replaceChildren(...shown);
  }

  toggleBox(box) {
    const chosen = this.state.query.objects.filter(({ part }) => part !== null).sort((a, b) => a.part - b.part)
      .map((object) => object.box.join());
    const others = chosen.filter((each) => each !== box);
    const boxes = others.length < chosen.length ? others : [...chosen, box];
    this.do("choose_boxes", { boxes: boxes.map((each) => each.split(",").map(Number)) });
  }

  updateQuery() {
    const { query, history } = this.state;
    const image = query?.image;
    this.empty.hidden = Boolean(image);
    setText(this.empty, query === null ? "No query yet" : query.title);
    this.frame.hidden = this.queryName.hidden = this.cropDetails.hidden = !image;
    if (image) {
      this.images.put(this.image, query.image);
      this.image.alt = `Query: ${query.name}`;
      setText(this.queryName, `${query.name} · ${query.class_name === "–" ? "no class" : query.class_name}`
        + (query.row === null ? "" : ` · number ${query.row}`));
      this.showRectangle(query.crop);
      const sides = query.crop ?? { left: 0, top: 0, width: 1, height: 1 };
      if (!this.cropForm.contains(document.activeElement) || document.activeElement.type !== "number") {
        for (const input of this.cropInputs) input.value = Math.round(100 * sides[input.name]);
      }
    }
    this.updateObjects();
    this.wholeButton.setAttribute("aria-disabled", !query?.crop && !query?.objects.some(({ part }) => part !== null));
    this.backButton.setAttribute("aria-disabled", history.position < 1);
    this.forwardButton.setAttribute("aria-disabled", history.position + 1 >= history.length);
    setText(this.position, history.length ? `${history.position + 1} of ${history.length}` : "");
  }

  // ---- the text, and the parts of the query ----

  describePart() {
    this.text = make("input", { type: "text", class: "text", placeholder: "boat at night -people",
      "data-tip": "What results show. A minus sign in front of a word leaves out what it names: boat at night -people" });
    this.textForm = make("form", { class: "line", noValidate: true, onsubmit: (event) => {
      event.preventDefault();
      this.do("set_text", { text: this.text.value });
    } }, this.field("Text", this.text), make("button", { type: "submit" }, "Search by text"));
    this.parts = make("ul", { class: "line parts", "aria-label": "Parts of the query" });
    this.partsHint = make("span", { class: "dim parts-hint" }, "Shift+click or + adds an image to the query.");
    return make("div", { class: "line describe" }, this.textForm, this.parts, this.partsHint);
  }

  updateParts() {
    const { query, text_hint: hint } = this.state;
    this.textForm.hidden = hint !== "";
    const text = query?.text ?? "";
    // Not while the user is typing.
    if (this.shownText !== text) this.text.value = this.shownText = text;
    const parts = query?.is_combined ? query.parts : [];
    this.parts.hidden = !parts.length;
    this.partsHint.hidden = parts.length > 0;
    const chips = this.parts.children;
    while (chips.length > parts.length) {
      const hadFocus = chips[chips.length - 1].contains(document.activeElement);
      chips[chips.length - 1].remove();
      if (hadFocus) (this.parts.lastChild?.lastChild ?? (hint ? this.thumbnails.children[this.tabbable ?? 0] : this.text)).focus();
    }
    parts.forEach((part, index) => {
      if (!chips[index]) this.parts.append(this.chip(index));
      this.updateChip(chips[index], part);
    });
  }

  chip(index) {
    const [sign, name] = [make("span", { class: "sign" }), make("span", { class: "part-name" })];
    const image = make("img", { alt: "", draggable: "false" });
    const weight = make("input", { type: "number", step: WEIGHT_STEP, class: "weight" });
    const timer = `weight ${index}`;
    const send = () => {
      chip.shownWeight = null;
      if (weight.value !== "") this.do("set_weight", { part: index, weight: weight.valueAsNumber });
    };
    // Arrow keys start one search, not one for each step.
    weight.addEventListener("change", () => this.later(timer, send));
    weight.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      clearTimeout(this.timers.get(timer));
      this.timers.delete(timer);
      send();
    });
    const remove = this.button("×", () => this.do("remove_part", { part: index }));
    const chip = make("li", { class: "part" }, sign, image, name, weight, remove);
    return Object.assign(chip, { sign, image, name, weight, timer, removal: remove });
  }

  updateChip(chip, { sign, name, weight, short_name: shortName, kind, row }) {
    const limit = this.state.query.max_weight;
    Object.assign(chip.weight, { min: -limit, max: limit });
    chip.weight.setAttribute("aria-label", `Weight of ${name}`);
    chip.weight.dataset.tip = `Weight, ${-limit} to ${limit}; negative: results must not resemble it`;
    if (chip.shownWeight !== weight && !this.timers.has(chip.timer)) chip.weight.value = chip.shownWeight = weight;
    chip.classList.toggle("unused", weight === 0);
    chip.classList.toggle("subtracted", sign !== "+");
    setText(chip.sign, sign);
    setText(chip.name, shortName);
    chip.image.hidden = kind !== "image";
    if (kind === "image") this.images.put(chip.image, row === null ? this.state.query.image : `row-${row}`);
    chip.removal.dataset.tip = `Remove ${name}`;
    chip.removal.setAttribute("aria-label", `Remove ${sign === "+" ? "" : "minus "}${name} from the query`);
  }

  // ---- the images to choose from ----

  chooserPart() {
    this.classes = make("select", { onchange: () => this.do("filter", { class_name: this.classes.value || null }) });
    this.row = make("input", { type: "number", min: "0", step: "1", class: "short" });
    this.path = make("input", { type: "text", placeholder: "image.jpg", spellcheck: false });
    this.file = make("input", { type: "file", accept: "image/*", class: "visually-hidden", onchange: () => {
      if (this.file.files.length) this.sendFile(this.file.files[0]);
      this.file.value = "";
    } });
    this.file.id = this.id("file");
    const form = (action, ...children) => make("form", { class: "line", noValidate: true, onsubmit: (event) => {
      event.preventDefault();
      action();
    } }, ...children);
    this.thumbnails = make("div", { class: "thumbnails", role: "group", "aria-label": "Images; move with the arrow keys",
      onkeydown: (event) => this.moveFocus(event) });
    this.pageText = make("span", { class: "dim" });
    this.previousButton = this.button("← Previous", () => this.do("previous_page"), { "aria-label": "Previous page" });
    this.nextButton = this.button("Next →", () => this.do("next_page"), { "aria-label": "Next page" });
    return make("div", { class: "chooser" },
      make("h3", {}, "Choose an image"),
      make("div", { class: "line sources" },
        this.field("Class", this.classes),
        this.button("Random", () => this.do("random")),
        form(() => this.row.value !== "" && this.do("choose", { row: this.row.valueAsNumber }),
          this.field("Number", this.row), make("button", { type: "submit", "aria-label": "Go to the number" }, "Go")),
        form(() => this.do("choose_path", { path: this.path.value }),
          this.field("Path", this.path), make("button", { type: "submit", "aria-label": "Open the path" }, "Open")),
        make("span", { class: "file" }, this.file, make("label", { for: this.file.id, class: "button" }, "Upload …")),
        this.button("Paste", () => this.pasteFromClipboard()),
        make("span", { class: "dim" }, "or drop a file here, or press Ctrl+V")),
      this.thumbnails,
      make("div", { class: "line" }, this.previousButton, this.nextButton, this.pageText));
  }

  updateChooser() {
    const { page, query, set } = this.state;
    this.fill(this.classes, ["", ...page.class_names], (name) => ({ "": "all", "–": "no class" })[name] ?? name);
    this.classes.value = page.class_name ?? "";
    this.row.max = set.size - 1;
    this.row.placeholder = `0–${set.size - 1}`;
    const chosen = new Set(query?.parts.map(({ row }) => row));
    const buttons = this.thumbnails.children;
    while (buttons.length > page.thumbnails.length) buttons[buttons.length - 1].remove();
    page.thumbnails.forEach((thumbnail, index) => {
      if (!buttons[index]) this.thumbnails.append(this.thumbnail());
      const button = buttons[index];
      const name = thumbnail.class_name === "–" ? "no class" : thumbnail.class_name;
      button.dataset.row = thumbnail.row;
      button.dataset.tip = `${name} · ${thumbnail.key} · number ${thumbnail.row}`;
      button.setAttribute("aria-label", `${name}, ${thumbnail.key}`);
      button.setAttribute("aria-pressed", chosen.has(thumbnail.row));
      this.images.put(button.firstChild, thumbnail.image);
    });
    const tabbable = Math.min(this.tabbable ?? 0, buttons.length - 1);
    [...buttons].forEach((button, index) => { button.tabIndex = index === tabbable ? 0 : -1; });
    this.previousButton.setAttribute("aria-disabled", page.number < 1);
    this.nextButton.setAttribute("aria-disabled", page.number + 1 >= page.count);
    setText(this.pageText, `page ${page.number + 1} of ${page.count}, ${page.listed} images`);
  }

  thumbnail() {
    const button = this.button(make("img", { alt: "", draggable: "false" }), (event) => {
      this.setTabbable([...this.thumbnails.children].indexOf(button));
      this.do(event.shiftKey ? "add" : "choose", { row: Number(button.dataset.row) });
    }, { class: "thumbnail" });
    return button;
  }

  setTabbable(position) {
    this.tabbable = position;
    [...this.thumbnails.children].forEach((button, index) => { button.tabIndex = index === position ? 0 : -1; });
  }

  moveFocus(event) {
    const buttons = [...this.thumbnails.children];
    const current = buttons.indexOf(event.target);
    const across = buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across,
      Home: -current, End: buttons.length - 1 - current };
    if (current < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "PageDown" || event.key === "PageUp") {
      this.do(event.key === "PageDown" ? "next_page" : "previous_page");
    } else if (event.key in steps) {
      const next = buttons[current + steps[event.key]];
      if (next) {
        this.setTabbable(current + steps[event.key]);
        next.focus();
      }
    } else return;
    event.preventDefault();
  }

  // ---- uploads ----

  acceptFiles() {
    const over = (event) => {
      event.preventDefault();
      event.stopPropagation();
      this.root.classList.toggle("over", event.type !== "dragleave" || this.root.contains(event.relatedTarget));
    };
    for (const kind of ["dragenter", "dragover", "dragleave"]) this.root.addEventListener(kind, over);
    const accept = (event, data) => {
      const file = [...(data?.files ?? [])].find(({ type }) => type.startsWith("image/")) ?? data?.files?.[0];
      if (file) {
        event.preventDefault();
        event.stopPropagation();
        this.sendFile(file, event.type === "paste");
      }
      return Boolean(file);
    };
    this.root.addEventListener("drop", (event) => {
      this.root.classList.remove("over");
      if (!accept(event, event.dataTransfer)) {
        event.preventDefault();
        event.stopPropagation();
        this.showError("Only files can be dropped here. Save the image first, then drop its file.");
      }
    });
    this.root.addEventListener("paste", (event) => accept(event, event.clipboardData));
  }

  async pasteFromClipboard() {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return this.sendFile(await item.getType(type), true);
      }
      return this.showError("There is no image in the clipboard.");
    } catch {
      return this.showError("The browser blocks access to the clipboard. Press Ctrl+V (⌘V) here instead.");
    }
  }

  async sendFile(file, pasted = false) {
    let content = file;
    if (file.size > MAX_UPLOAD) {
      try {
        content = await shrunk(file);
      } catch {
        return this.showError(`${file.name ?? "This image"} is too large, and the browser cannot shrink it.`);
      }
    }
    const bytes = await content.arrayBuffer();
    return pasted ? this.do("paste", {}, bytes) : this.do("upload", { name: file.name ?? "upload" }, bytes);
  }

  showError(text) {
    this.local = text;
    this.updateStatus();
  }

  // ---- the method ----

  settingsPart() {
    const methods = (action) => ["extractor", "index", "reranker"].map((part) => {
      const select = make("select", { class: part, onchange: () => this.later(`${action} ${part}`, () =>
        this.do(action, { [part]: select.value })) });
      return [part, select];
    });
    const labels = { extractor: "Extractor", index: "Index", reranker: "Re-ranking" };
    this.firstSelects = methods("use");
    this.secondSelects = methods("compare");
    const setK = () => {
      this.shownK = null;
      this.do("set_k", { k: this.k.valueAsNumber });
    };
    this.k = make("input", { type: "number", min: "1", step: "1", class: "short",
      onchange: () => this.k.value !== "" && this.later("k", setK) });
    this.comparing = make("input", { type: "checkbox", id: this.id("compare"), onchange: () =>
      this.do(this.comparing.checked ? "compare" : "compare_off") });
    this.second = make("fieldset", { class: "line" }, make("legend", {}, "Second method"),
      ...this.secondSelects.map(([part, select]) => this.field(labels[part], select)));
    return make("form", { class: "settings", noValidate: true, onsubmit: (event) => {
      event.preventDefault();
      // Send what was just typed before the search.
      clearTimeout(this.timers.get("k"));
      this.timers.delete("k");
      if (this.k.value !== "" && this.k.valueAsNumber !== this.state.k) setK();
      const typed = this.text.value.trim();
      if (!this.textForm.hidden && typed !== (this.state.query?.text ?? "")) this.do("set_text", { text: typed });
      else this.do("search");
    } },
    make("fieldset", { class: "line" }, make("legend", {}, "Method"),
      ...this.firstSelects.map(([part, select]) => this.field(labels[part], select)),
      this.field("k", this.k),
      make("button", { type: "submit", class: "main" }, "Search"),
      make("span", { class: "check" }, this.comparing, make("label", { for: this.comparing.id }, "Compare two methods"))),
    this.second);
  }

  updateSettings() {
    const { method, other, k, limit } = this.state;
    const lists = { extractor: this.state.extractors, index: this.state.indexes, reranker: this.state.rerankers };
    for (const [selects, chosen, action] of [[this.firstSelects, method, "use"], [this.secondSelects, other, "compare"]]) {
      for (const [part, select] of selects) {
        this.fill(select, lists[part]);
        // Re-rankers that do not work with the index are shown but disabled.
        const possible = this.state.possible[action === "use" ? 0 : 1];
        if (part === "reranker" && possible) {
          for (const option of select.options) option.disabled = !possible.includes(option.value);
          this.explainReranking(select);
        }
        if (chosen && !this.timers.has(`${action} ${part}`)) select.value = chosen[part];
      }
    }
    // Not while the user is typing.
    if (this.shownK !== k && !this.timers.has("k")) this.k.value = this.shownK = k;
    this.k.max = limit;
    this.comparing.checked = other !== null;
    this.second.hidden = other === null;
  }

  explainReranking(select) {
    const combined = this.state.query?.is_combined;
    setText(select.options[0], select.options[0].value + (combined ? " (one image only)" : ""));
    if (combined) select.dataset.tip = ONE_IMAGE;
    else delete select.dataset.tip;
  }

  fill(select, values, text = (value) => value) {
    if (JSON.stringify([...select.options].map((option) => option.value)) === JSON.stringify(values)) return;
    select.replaceChildren(...values.map((value) => make("option", { value }, text(value))));
  }

  // ---- the results ----

  resultsPart() {
    this.columns = make("div", { class: "columns" });
    this.markText = make("span", { class: "dim gap" });
    this.again = this.button("Search again with marks", () => this.do("search_again"));
    this.forgetMarks = this.button("Forget marks", () => this.do("forget_marks"));
    const exportFile = (kind, column = 0) => () => {
      this.exporting = true;
      this.model.send({ export: kind, column });
    };
    this.secondTable = this.button("Second ranking as CSV", exportFile("csv", 1));
    this.after = make("div", { class: "line after" }, this.again, this.forgetMarks, this.markText,
      this.button("Ranking as CSV", exportFile("csv")), this.secondTable,
      this.button("Grid as PNG", exportFile("png")));
    return make("div", { class: "results" }, this.columns, this.after);
  }

  updateResults() {
    const { columns, marks, searching, applied, pending } = this.state;
    this.columns.setAttribute("aria-busy", searching);
    // During a search the old results stay, gray and not clickable. `inert` would take the focus away.
    if (!searching) {
      while (this.columns.children.length > columns.length) this.columns.lastChild.remove();
      columns.forEach((column, number) => {
        if (!this.columns.children[number]) this.columns.append(this.column(number));
        this.updateColumn(this.columns.children[number], column, marks);
      });
      this.columns.classList.toggle("two", columns.length > 1);
    }
    this.after.hidden = !columns.length && !this.columns.children.length;
    this.secondTable.hidden = columns.length < 2;
    const values = Object.values(marks);
    const good = values.filter(Boolean).length;
    setText(this.markText, values.length
      ? `${good} good, ${values.length - good} bad${pending ? ", not applied yet" : ""}`
      : applied ? "marks removed, but still applied" : "Mark results as good or bad, then search again.");
    this.again.setAttribute("aria-disabled", !pending);
    this.forgetMarks.setAttribute("aria-disabled", !values.length && !applied);
  }

  column(number) {
    const [heading, note, list] = [make("h3", { id: this.id(`column-${number}`) }), make("p", { class: "dim note" }),
      make("ol", { "aria-labelledby": this.id(`column-${number}`) })];
    const column = make("div", { class: "column" }, heading, note, list);
    Object.assign(column, { heading, note, list, number });
    return column;
  }

  updateColumn(column, { method, results, note, seconds }, marks) {
    const reranker = method.reranker === this.state.rerankers[0] ? "" : ` · ${method.reranker}`;
    setText(column.heading, `${method.extractor} · ${method.index}${reranker}`);
    setText(column.note, `${seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`}${note && ` · ${note}`}`);
    const cards = column.list.children;
    while (cards.length > results.length) cards[cards.length - 1].remove();
    results.forEach((result, index) => {
      if (!cards[index]) column.list.append(this.card(column.number));
      this.updateCard(cards[index], result, marks[result.id]);
    });
  }

  card(column) {
    const card = make("li", { class: "card" });
    const outlines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    outlines.classList.add("outlines");
    outlines.setAttribute("aria-hidden", "true");
    const image = make("img", { alt: "", draggable: "false", onload: () => outline(outlines, image, card.result.boxes) });
    const ready = (action) => (event) => this.state.searching || action(event);
    const add = () => this.do("add", { row: card.result.id });
    const mark = (good) => ready(() => this.do("mark", { id: card.result.id, good: card.mark === good ? null : good }));
    const parts = {
      image,
      outlines,
      open: this.button(image, ready((event) =>
        (event.shiftKey ? add() : this.do("follow", { id: card.result.id }))), { class: "image" }),
      sign: make("span", { class: "sign" }),
      score: make("span"),
      name: make("span", { class: "class" }),
      good: this.button("good", mark(true)),
      bad: this.button("bad", mark(false)),
      why: this.button("why", ready(() => {
        this.explaining = [column, card.result.id];
        this.do("why", { id: card.result.id, column });
      })),
      add: this.button("+", ready(add), { class: "add", "data-tip": "Add to the query" }),
    };
    parts.open.append(outlines);
    card.append(parts.open, make("div", { class: "line caption" }, parts.sign, parts.score), parts.name,
      make("div", { class: "line actions" }, parts.good, parts.bad, parts.why), parts.add);
    return Object.assign(card, { parts });
  }

  updateCard(card, result, mark) {
    const { parts } = card;
    Object.assign(card, { result, mark });
    const name = result.class_name === "–" ? "no class" : result.class_name;
    const relevance = RELEVANCE.get(result.relevant);
    const matched = result.boxes.some(Boolean);
    card.className = `card ${relevance?.replace(" ", "-") ?? ""}`;
    setText(parts.sign, SIGNS.get(result.relevant) ?? "");
    setText(parts.score, `${result.rank} · ${result.score.toFixed(3)}`);
    setText(parts.name, name);
    parts.open.dataset.tip = `${name} · score ${result.score.toPrecision(6)} · ${result.key}`;
    parts.open.setAttribute("aria-label",
      `Search with rank ${result.rank}: ${name}, score ${result.score.toFixed(3)}${relevance ? `, ${relevance}` : ""}${matched ? ", matched part outlined" : ""}, ${result.key}`);
    for (const [button, good] of [[parts.good, true], [parts.bad, false]]) {
      button.setAttribute("aria-pressed", mark === good);
      button.setAttribute("aria-label", `${good ? "good" : "bad"} result, rank ${result.rank}`);
    }
    parts.why.setAttribute("aria-label", `why is rank ${result.rank} similar`);
    parts.why.setAttribute("aria-disabled", !this.state.query?.image);
    parts.add.setAttribute("aria-label", `add rank ${result.rank} to the query`);
    this.images.put(parts.image, result.image);
    outline(parts.outlines, parts.image, result.boxes);
  }

  // ---- why ----

  whyPart() {
    this.whyHeading = make("h3", { tabindex: "-1" });
    this.whyText = make("p", { class: "dim" });
    this.whyImages = ["query", "result"].map(() => make("img", { draggable: "false" }));
    this.why = make("div", { class: "why", role: "region", "aria-label": "Why similar", hidden: true,
      onkeydown: (event) => event.key === "Escape" && this.closeWhy() },
    this.whyHeading, this.whyText,
    make("div", { class: "line" }, ...this.whyImages.map((image, index) =>
      make("figure", {}, image, make("figcaption", {}, index ? "result" : "query")))),
    make("div", { class: "line" }, make("span", { class: "scale", "aria-hidden": "true" }),
      make("span", { class: "dim" }, "dark: contributes nothing, bright: contributes most")),
    this.button("Close", () => this.closeWhy()));
    return this.why;
  }

  closeWhy() {
    const { column, id } = this.state.explained;
    this.do("close_why");
    const cards = [...(this.columns.children[column]?.list.children ?? [])];
    cards.find((card) => card.result.id === id)?.parts.why.focus();
  }

  updateWhy() {
    const { explained } = this.state;
    this.why.hidden = explained === null;
    if (!explained) return;
    setText(this.whyHeading, `Why similar: ${explained.key}`);
    const { query } = this.state;
    setText(this.whyText, `Similarity ${query?.is_combined ? `to ${query.name} ` : ""}${explained.similarity.toFixed(3)}. The maps show ${explained.shows} (${explained.method}).`);
    explained.images.forEach((key, index) => {
      this.images.put(this.whyImages[index], key);
      this.whyImages[index].alt = index ? `${explained.key} with its map` : "The query with its map";
    });
    if (this.explaining?.[0] === explained.column && this.explaining[1] === explained.id) {
      this.explaining = null;
      this.whyHeading.focus({ preventScroll: true });
      this.why.scrollIntoView({ block: "nearest" });
    }
  }

  update() {
    this.state = JSON.parse(this.model.get("state"));
    this.updateQuery();
    this.updateParts();
    this.updateChooser();
    this.updateSettings();
    this.updateResults();
    this.updateWhy();
    this.updateStatus();
    this.tip.refresh();
  }
}

// An upright JPEG with sides of at most SHRUNK_SIDE pixels.
async function shrunk(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SHRUNK_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)) });
  const drawing = canvas.getContext("2d");
  // White behind transparency, as Python does.
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no JPEG"))), "image/jpeg", 0.92));
}

export default {
  render({ model, el }) {
    const page = new Page(model, el);
    return () => page.close();
  },
};
