// Words, numbers and signs that the page and the query picker write in the same way.

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

export const scoreNumber = (score) => score.toFixed(3);

// A result that two methods have in common: its rank in the other list, and the number of such results.
export const alsoRank = (rank) => (rank ? `also rank ${rank}` : "");
export const inBothLists = (count) => `${count.toLocaleString("en")} in both lists`;

export const markCounts = (good, bad) => `${good} good, ${bad} bad`;
export const BUTTONS = {
  again: "Search again with marks",
  forget: "Forget marks",
  search: "Search with this image",
};
export const NO_RERANKING = "No re-ranking";

export const NO_CLASS = "no class";
export const ALL_CLASSES = "All classes";
// name: of the class of all results, null for none.
export const classOnly = (name) => `${name === null ? NO_CLASS : `class ${name}`} only`;

// Relevance: true, false or null if it is unknown.
export const SIGNS = new Map([[true, "○"], [false, "✗"]]);
export const RELEVANCE = new Map([[true, "relevant"], [false, "not relevant"]]);

// Controls of a card: the tooltip, and the label with the name of the image.
export const CONTROLS = {
  enlarge: ["Enlarge", (name) => `Enlarge ${name}`],
  add: ["Add to the query", (name) => `Add ${name} to the query`],
  good: ["Good result", (name) => `Good result: ${name}`],
  bad: ["Bad result", (name) => `Bad result: ${name}`],
  why: ["Why similar?", (name) => `Why is ${name} similar?`],
  pick: ["Select", (name) => `Select ${name}`],
};
