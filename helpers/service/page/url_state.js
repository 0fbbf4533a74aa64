// The state of the page in its URL fragment, so that back, forward, bookmarks and links work.

const IS_BOX = /^\d+(\.\d+)?(,\d+(\.\d+)?){3}$/;
// Further images of a query.
export const MAX_ALSO = 10;
// Parts of a query image, as the service accepts them; one may be a crop.
const MAX_BOXES = 7;
// Characters of a text, as the service accepts them.
const MAX_TEXT = 1000;
// Marks of each kind, as the service accepts them.
const MAX_MARKS = 100;

/**
 * A view: the query image, its parts, a text, marks, and how results are searched and shown.
 * query: null (the gallery itself) or {kind: "id" | "upload", value: string};
 * crop: null or {left, top, width, height}, fractions of the upright image; boxes: further parts of it, each
 * "x,y,width,height" in pixels; text: "" for none, with weight; also: further images of the query, [{id, weight}];
 * good, bad: ids of marked results; rerank, compare: names of re-rankers, "" for none; threshold: the least score, or
 * null; sort: the order of the gallery, "" for a random one; className: "" for all
 * images, null for those without a class.
 */
export function parse(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const text = (name) => fields.get(name) ?? "";
  const kind = ["id", "upload"].find((name) => fields.get(name));
  const query = kind ? { kind, value: fields.get(kind) } : null;
  const valid = query && (kind !== "id" || /^\d{1,15}$/.test(query.value)) ? query : null;
  return {
    query: valid,
    crop: valid && parseCrop(fields.get("crop")),
    boxes: valid ? fields.getAll("box").filter((box) => IS_BOX.test(box)).slice(0, MAX_BOXES) : [],
    text: text("text").trim().slice(0, MAX_TEXT),
    weight: parseWeight(fields.get("weight"), 0.01) ?? 1,
    also: parseAlso(fields.get("also")),
    good: parseIds(text("good")),
    bad: parseIds(text("bad")),
    rerank: parseName(text("rerank")),
    compare: parseName(text("compare")),
    threshold: parseNumber(text("min")),
    sort: parseName(text("sort")),
    className: fields.get("no_class") === "true" ? null : text("class"),
  };
}

export function format(view) {
  const { query, crop, boxes = [], text = "", weight = 1, also = [], good = [], bad = [], className } = view;
  const fields = new URLSearchParams();
  if (query) fields.set(query.kind, query.value);
  if (query && crop) fields.set("crop", [crop.left, crop.top, crop.width, crop.height].join(","));
  if (query) for (const box of boxes) fields.append("box", box);
  if (text) fields.set("text", text);
  if (text && weight !== 1) fields.set("weight", weight);
  if (also.length) fields.set("also", also.map((part) => `${part.id}:${part.weight}`).join(","));
  if (good.length) fields.set("good", good.join(","));
  if (bad.length) fields.set("bad", bad.join(","));
  for (const name of ["rerank", "compare", "sort"]) if (view[name]) fields.set(name, view[name]);
  if (view.threshold !== null && view.threshold !== undefined) fields.set("min", view.threshold);
  if (className) fields.set("class", className);
  if (className === null) fields.set("no_class", "true");
  const hash = fields.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return hash && `#${hash}`;
}

const imageOf = ({ query, crop, boxes }) => JSON.stringify([query, crop, boxes]);

/** Whether two views have the same query image and the same parts of it. */
export const sameImage = (a, b) => imageOf(a) === imageOf(b);

/** Whether a view shows results of a search, and not the gallery. */
export const isSearch = ({ query, text, also }) => Boolean(query || text || also.length);

/** Whether a view shows only images of one class, or only those without a class. */
export const isFiltered = ({ className }) => className !== "";

/** Whether the query is one image, or one part of it: only such results can be re-ranked. */
export const isSingle = ({ query, text, also, crop, boxes }) =>
  Boolean(query) && !text && !also.length && boxes.length + (crop ? 1 : 0) < 2;

function parseCrop(text) {
  const numbers = (text ?? "").split(",").map(Number);
  if (numbers.length !== 4 || !numbers.every((number) => number >= 0 && number <= 1)) return null;
  const [left, top, width, height] = numbers;
  const inside = width > 0 && height > 0 && left + width <= 1.0001 && top + height <= 1.0001;
  return inside ? { left, top, width, height } : null;
}

const parseNumber = (text) => (text && Number.isFinite(Number(text)) ? Number(text) : null);

const parseName = (text) => (/^-?[\w-]{1,40}$/.test(text) ? text : "");

const parseIds = (text) => text.split(",").filter((id) => /^\d{1,15}$/.test(id)).map(Number).slice(0, MAX_MARKS);

// A number that is not 0 and that the service accepts, or null.
function parseWeight(text, least = -100) {
  const number = Number(text || NaN);
  return number && number >= least && number <= 100 ? number : null;
}

function parseAlso(text) {
  const parts = (text ?? "").split(",").map((part) => /^(\d{1,15}):(-?[\d.]+)$/.exec(part));
  const also = parts.filter(Boolean).map(([, id, weight]) => ({ id: Number(id), weight: parseWeight(weight) }));
  return also.filter(({ weight }) => weight !== null).slice(0, MAX_ALSO);
}

/** The parts of a text: "boat at night -people" is {added: "boat at night", subtracted: ["people"]}. */
export function textParts(text) {
  const words = text.split(/\s+/).filter(Boolean);
  const isSubtracted = (word) => /^[-−].+/.test(word);
  return {
    added: words.filter((word) => !isSubtracted(word)).join(" "),
    subtracted: words.filter(isSubtracted).map((word) => word.slice(1)),
  };
}
