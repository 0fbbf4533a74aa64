// The query picker's page. It shows the state that Python sends as JSON and sends user actions back; it makes no
// decisions. Elements are created once and changed in place, which keeps the focus.

import { Images } from "./images.js";
import { Tip } from "./tip.js";
import { acceptFiles, contentOf, copiedImage } from "./uploads.js";
import { controlOf, decorateCard, makeCard, outlineOnCard, showOnCard } from "./web/cards.js";
import { CropBox, WHOLE, fromFields, toFields } from "./web/crop_box.js";
import { hide, make, write } from "./web/dom.js";
import { icon } from "./web/icons.js";
import { ImageViewer } from "./web/image_viewer.js";
import { ObjectButtons, outlines } from "./web/parts.js";
import { ALL_CLASSES, BUTTONS, CONTROLS, NO_CLASS, NO_RERANKING, RELEVANCE, alsoRank, classOnly, inBothLists, markCounts, scoreNumber } from "./web/words.js";

// Milliseconds: arrow keys in a list of options start no search for the options that they pass.
const PAUSE = 350;
const WEIGHT_STEP = "0.25";
const ONE_IMAGE = "Re-ranking works for one image, not with a text or several images.";

let instances = 0;

function isDark(element) {
  for (let at = element; at; at = at.parentElement) {
    const [red, green, blue, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (blue !== undefined && alpha > 0.5) return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
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
      class: "lookalike lookalike-picker",
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
      this.viewerPart(),
    );
    acceptFiles(this.root, { file: (file, pasted) => this.sendFile(file, pasted), fail: (text) => this.showError(text) });
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

  form(name, action, ...children) {
    return make("form", { class: name, noValidate: true, onsubmit: (event) => {
      event.preventDefault();
      action();
    } }, ...children);
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
    const others = new Set(columns[1]?.results.map(({ id }) => id));
    const common = columns.length > 1 ? `, ${inBothLists(columns[0].results.filter(({ id }) => others.has(id)).length)}` : "";
    const found = columns.length
      ? `${columns[0].results.length} results for ${query.title}${relevant[0] && `, ${relevant.join(" and ")}`}${common}.`
      : query === null ? `Choose an image as the query${hint ? "" : ", or describe what to find"}.` : "";
    const note = message?.kind === "note" ? `${message.text} ` : "";
    write(this.alert, error);
    write(this.status, searching || progress ? progress || "Searching …" : error ? "" : note + found);
    write(this.hint, hint);
  }

  // ---- the query ----

  queryPart() {
    this.image = make("img", { class: "query", alt: "", draggable: "false" });
    const objects = make("div", { class: "objects", role: "group", "aria-label": "Objects in the query image" });
    this.cropBox = make("div", { class: "crop", role: "group", tabindex: "0", hidden: true,
      "aria-roledescription": "crop box", "aria-label": "Part of the image to search with",
      "data-tip": "Arrow keys move it, Shift and arrow keys resize it, Enter searches." });
    this.frame = make("div", { class: "stage" }, this.image, objects, this.cropBox);
    this.objects = new ObjectButtons(objects, (box) => this.toggleBox(box));
    this.findButton = this.button("Find objects", () => this.do("find_objects"));
    this.empty = make("p", { class: "empty" }, "No query yet");
    this.queryName = make("p", { class: "name" });
    this.backButton = this.button("← Back", () => this.do("back"));
    this.forwardButton = this.button("Forward →", () => this.do("forward"));
    this.undoButton = this.button(icon("undo"), () => this.do("undo"), { class: "undo" });
    this.undoButton.append("Undo");
    this.uploadClass = make("select", { onchange: () => this.do("set_class", { class_name: this.uploadClass.value || null }) });
    this.uploadField = this.field("Class", this.uploadClass);
    this.position = make("span", { class: "dim" });
    this.cropInputs = ["Left", "Top", "Width", "Height"].map((name) =>
      make("input", { type: "number", min: "0", max: "100", step: "1", name: name.toLowerCase(), value: "0" }));
    this.cropForm = this.form("crop-form", () => this.do("crop", fromFields(this.cropForm.elements)),
      make("div", { class: "four" }, ...this.cropInputs.map((input) => this.field(`${input.name} %`, input))),
      make("div", { class: "line" }, make("button", { type: "submit" }, "Crop"),
        this.wholeButton = this.button("Whole image", () => this.do("uncrop"))));
    this.crop = new CropBox(this.frame, this.cropBox, {
      onChange: (rectangle) => toFields(this.cropForm.elements, rectangle),
      onDone: (rectangle) => this.do("crop", rectangle),
    });
    return make("div", { class: "query-part" },
      make("h3", {}, "Query"), this.empty, this.frame, this.queryName, this.uploadField,
      make("div", { class: "line" }, this.backButton, this.forwardButton, this.undoButton, this.position),
      this.findButton,
      this.cropDetails = make("details", {},
        make("summary", {}, "Crop: drag on the image, or enter numbers"), this.cropForm));
  }

  updateObjects() {
    const { query } = this.state;
    const objects = query?.image ? query.objects : [];
    this.findButton.hidden = !query?.image;
    this.findButton.setAttribute("aria-disabled", Boolean(query?.searched_objects));
    this.objects.show(objects.map(({ box, place, class_name: name, score, part }) => ({
      key: box.join(), place, name, part: part === null ? null : part + 1,
      label: score === null ? `Search with this ${name}` : `Search with ${name}, score ${score.toFixed(2)}`,
    })));
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
    write(this.empty, query === null ? "No query yet" : query.title);
    this.frame.hidden = this.queryName.hidden = this.cropDetails.hidden = !image;
    if (image) {
      this.images.put(this.image, query.image);
      this.image.alt = `Query: ${query.name}`;
      write(this.queryName, `${query.name} · ${query.class_name === "–" ? NO_CLASS : query.class_name}`
        + (query.row === null ? "" : ` · number ${query.row}`));
      if (query.crop) this.crop.show(query.crop);
      else {
        this.crop.hide();
        toFields(this.cropForm.elements, WHOLE);
      }
    }
    this.crop.enabled = Boolean(image);
    // The class of an image of the set is known.
    this.uploadField.hidden = !image || query.row !== null;
    this.fill(this.uploadClass, ["", ...this.state.page.class_names.filter((name) => name !== "–")], (name) => name || NO_CLASS);
    this.uploadClass.value = query?.given_class ?? "";
    hide(this.undoButton, !this.state.undo);
    this.undoButton.dataset.tip = `Undo: ${this.state.undo}`;
    this.updateObjects();
    this.wholeButton.setAttribute("aria-disabled", !query?.crop && !query?.objects.some(({ part }) => part !== null));
    this.backButton.setAttribute("aria-disabled", history.position < 1);
    this.forwardButton.setAttribute("aria-disabled", history.position + 1 >= history.length);
    write(this.position, history.length ? `${history.position + 1} of ${history.length}` : "");
  }

  // ---- the text, and the parts of the query ----

  describePart() {
    this.text = make("input", { type: "text", class: "text", placeholder: "boat at night -people",
      "data-tip": "What results show. A minus sign in front of a word leaves out what it names: boat at night -people" });
    this.textForm = this.form("line", () => this.do("set_text", { text: this.text.value }),
      this.field("Text", this.text), make("button", { type: "submit" }, "Search by text"));
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
    write(chip.sign, sign);
    write(chip.name, shortName);
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
        this.form("line", () => this.row.value !== "" && this.do("choose", { row: this.row.valueAsNumber }),
          this.field("Number", this.row), make("button", { type: "submit", "aria-label": "Go to the number" }, "Go")),
        this.form("line", () => this.do("choose_path", { path: this.path.value }),
          this.field("Path", this.path), make("button", { type: "submit", "aria-label": "Open the path" }, "Open")),
        make("span", { class: "file" }, this.file, make("label", { for: this.file.id, class: "button" }, "Upload …")),
        this.button("Paste", () => this.sendFile(copiedImage(), true)),
        make("span", { class: "dim" }, "or drop a file here, or press Ctrl+V")),
      this.thumbnails,
      make("div", { class: "line" }, this.previousButton, this.nextButton, this.pageText));
  }

  updateChooser() {
    const { page, query, set } = this.state;
    this.fill(this.classes, ["", ...page.class_names], (name) => ({ "": ALL_CLASSES, "–": NO_CLASS })[name] ?? name);
    this.classes.value = page.class_name ?? "";
    this.row.max = set.size - 1;
    this.row.placeholder = `0–${set.size - 1}`;
    const chosen = new Set(query?.parts.map(({ row }) => row));
    const buttons = this.thumbnails.children;
    while (buttons.length > page.thumbnails.length) buttons[buttons.length - 1].remove();
    page.thumbnails.forEach((thumbnail, index) => {
      if (!buttons[index]) this.thumbnails.append(this.thumbnail());
      const button = buttons[index];
      const name = thumbnail.class_name === "–" ? NO_CLASS : thumbnail.class_name;
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
    write(this.pageText, `page ${page.number + 1} of ${page.count}, ${page.listed} images`);
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

  // file: an image file, or a promise of one.
  async sendFile(file, pasted = false) {
    try {
      const image = await file;
      const bytes = await contentOf(image);
      this.do(pasted ? "paste" : "upload", pasted ? {} : { name: image.name ?? "upload" }, bytes);
    } catch (error) {
      this.showError(error.message);
    }
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
    return this.form("settings", () => {
      // Send what was just typed before the search.
      clearTimeout(this.timers.get("k"));
      this.timers.delete("k");
      if (this.k.value !== "" && this.k.valueAsNumber !== this.state.k) setK();
      const typed = this.text.value.trim();
      if (!this.textForm.hidden && typed !== (this.state.query?.text ?? "")) this.do("set_text", { text: typed });
      else this.do("search");
    },
    make("fieldset", { class: "line" }, make("legend", {}, "Method"),
      ...this.firstSelects.map(([part, select]) => this.field(labels[part], select)),
      this.field("k", this.k),
      make("button", { type: "submit", class: "primary" }, "Search"),
      make("span", { class: "check" }, this.comparing, make("label", { for: this.comparing.id }, "Compare two methods"))),
    this.second);
  }

  updateSettings() {
    const { method, other, k, limit } = this.state;
    const lists = { extractor: this.state.extractors, index: this.state.indexes, reranker: this.state.rerankers };
    for (const [selects, chosen, action] of [[this.firstSelects, method, "use"], [this.secondSelects, other, "compare"]]) {
      for (const [part, select] of selects) {
        this.fill(select, lists[part], (name) => (name === lists.reranker[0] ? NO_RERANKING : name));
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
    write(select.options[0], combined ? "Only for one image" : NO_RERANKING);
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
    this.again = this.button(BUTTONS.again, () => this.do("search_again"));
    this.forgetMarks = this.button(BUTTONS.forget, () => this.do("forget_marks"));
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
      const ranks = columns.map(({ results }) => new Map(results.map(({ id, rank }) => [id, rank])));
      columns.forEach((column, number) => {
        if (!this.columns.children[number]) this.columns.append(this.column(number));
        this.updateColumn(this.columns.children[number], column, marks, ranks[1 - number]);
      });
      for (const name of ["two", "compared"]) this.columns.classList.toggle(name, columns.length > 1);
    }
    this.after.hidden = !columns.length && !this.columns.children.length;
    this.secondTable.hidden = columns.length < 2;
    const values = Object.values(marks);
    const good = values.filter(Boolean).length;
    write(this.markText, values.length
      ? `${markCounts(good, values.length - good)}${pending ? ", not applied yet" : ""}`
      : applied ? "marks removed, but still applied" : "Mark results as good or bad, then search again.");
    this.again.setAttribute("aria-disabled", !pending);
    this.forgetMarks.setAttribute("aria-disabled", !values.length && !applied);
  }

  column(number) {
    const [heading, note, list] = [make("h3", { id: this.id(`column-${number}`) }), make("p", { class: "dim note" }),
      make("ol", { class: "grid", "aria-labelledby": this.id(`column-${number}`),
        onclick: (event) => this.cardClicked(event, number) })];
    const column = make("div", { class: "column" }, heading, note, list);
    Object.assign(column, { heading, note, list, number });
    return column;
  }

  /** others: id → rank in the other column, if there are two. */
  updateColumn(column, { method, results, note, seconds }, marks, others) {
    const reranker = method.reranker === this.state.rerankers[0] ? "" : ` · ${method.reranker}`;
    write(column.heading, `${method.extractor} · ${method.index}${reranker}`);
    const className = this.state.page.class_name;
    const ofClass = className === null ? "" : ` · ${classOnly(className === "–" ? null : className)}`;
    write(column.note, `${seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`}${ofClass}${note && ` · ${note}`}`);
    const cards = column.list.children;
    while (cards.length > results.length) cards[cards.length - 1].remove();
    results.forEach((result, index) => {
      if (!cards[index]) column.list.append(makeCard({ controls: ["enlarge", "add", "good", "bad", "why"] }));
      this.updateCard(cards[index], result, { mark: marks[result.id], note: alsoRank(others?.get(result.id)) });
    });
  }

  cardClicked(event, column) {
    const card = event.target.closest(".card");
    if (!card || this.state.searching) return;
    const { id } = card.result;
    const mark = (good) => this.do("mark", { id, good: card.mark === good ? null : good });
    const actions = {
      open: () => this.do(event.shiftKey ? "add" : "follow", event.shiftKey ? { row: id } : { id }),
      enlarge: () => this.viewer.open(this.viewed(column, card.result)),
      add: () => this.do("add", { row: id }),
      good: () => mark(true),
      bad: () => mark(false),
      why: () => this.explain(id, column),
    };
    actions[controlOf(event)]?.();
  }

  explain(id, column) {
    this.explaining = [column, id];
    this.do("why", { id, column });
  }

  updateCard(card, result, { mark = null, note }) {
    const { parts } = card;
    Object.assign(card, { result, mark });
    const className = result.class_name === "–" ? null : result.class_name;
    const name = className ?? NO_CLASS;
    const relevance = RELEVANCE.get(result.relevant);
    const matched = result.boxes.some(Boolean);
    showOnCard(card, {
      id: result.id, name: `rank ${result.rank}`, className, score: scoreNumber(result.score),
      line: `${result.rank} · ${result.name}`, ratio: result.ratio, relevant: result.relevant,
      label: `Search with rank ${result.rank}: ${name}, score ${result.score.toFixed(3)}${relevance ? `, ${relevance}` : ""}${matched ? ", matched part outlined" : ""}${note && `, ${note}`}, ${result.key}`,
    });
    parts.open.dataset.tip = `${name} · score ${result.score.toPrecision(6)} · ${result.key}`;
    decorateCard(card, { mark, note });
    parts.why.setAttribute("aria-disabled", !this.state.query?.image);
    this.images.put(parts.image, result.image);
    outlineOnCard(card, this.outlined(result, "slice"));
  }

  // Outlines of the boxes of a result, which are fractions of its sides.
  outlined({ boxes, ratio }, fit) {
    const [width, height] = [1000 * (ratio ?? 1), 1000];
    const parts = boxes.map((box, number) => box && { x: box[0] * width, y: box[1] * height, width: box[2] * width,
      height: box[3] * height, part: number + 1 }).filter(Boolean);
    return outlines({ width, height, parts }, fit);
  }

  // ---- one enlarged result ----

  viewerPart() {
    const act = (action) => () => {
      const { id } = this.viewer.item.result;
      this.viewer.dialog.close();
      action(id);
    };
    const actions = make("div", { class: "row" },
      this.button(BUTTONS.search, act((id) => this.do("follow", { id })), { class: "primary" }),
      this.button(CONTROLS.add[0], act((id) => this.do("add", { row: id }))),
      this.viewerWhy = this.button(CONTROLS.why[0], act((id) => this.explain(id, this.viewer.item.column))));
    this.viewer = new ImageViewer({ prefix: this.id("viewer"), actions: [actions],
      neighbor: (item, step) => this.neighbor(item, step),
      shown: () => hide(this.viewerWhy, !this.state.query?.image) });
    return this.viewer.dialog;
  }

  neighbor({ column, result }, step) {
    const { results } = this.state.columns[column] ?? { results: [] };
    const next = results[results.findIndex(({ id }) => id === result.id) + step];
    return next ? this.viewed(column, next) : null;
  }

  viewed(column, result) {
    const name = result.class_name === "–" ? NO_CLASS : result.class_name;
    return {
      column, result, name: result.name, alt: `${result.name}, ${name}`, outlines: this.outlined(result, "meet"),
      facts: `${name} · score ${scoreNumber(result.score)} · rank ${result.rank} · ${result.key}`,
      source: (image) => {
        image.dataset.key = "";
        this.images.put(image, `view-${result.id}`);
      },
    };
  }

  // ---- why ----

  whyPart() {
    this.whyHeading = make("h3", { tabindex: "-1" });
    this.whyText = make("p", { class: "dim" });
    this.whyImages = ["query", "result"].map(() => make("img", { draggable: "false" }));
    this.why = make("div", { class: "why", role: "region", "aria-label": CONTROLS.why[0], hidden: true,
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
    write(this.whyHeading, `Why similar: ${explained.key}`);
    const { query } = this.state;
    write(this.whyText, `Similarity ${query?.is_combined ? `to ${query.name} ` : ""}${explained.similarity.toFixed(3)}${explained.note ? `. ${explained.note}` : "."} The maps show ${explained.shows} (${explained.method}).`);
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

export default {
  render({ model, el }) {
    const page = new Page(model, el);
    return () => page.close();
  },
};
