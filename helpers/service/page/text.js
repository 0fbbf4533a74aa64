// Numbers, sizes and scores as text.

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

export const fileSize = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : megabytes(bytes));

// Distances are negated, so that higher is better with every metric.
export const isDistance = ({ index }) => /euclid|manhattan|:l[12]\b/i.test(index);

/** The tooltip of a score. info: from /v1/info; isCombined: whether the query has several parts; rerank: or "". */
export function scoreText(info, score, isCombined = false, rerank = "") {
  const value = score.toFixed(4);
  if (rerank) return `${value}: score of the re-ranking ${rerank}. Compare it within one search.`;
  if (isCombined) return `${value}: mean similarity to the parts of the query. Compare it within one search.`;
  const [measure, best] = isDistance(info) ? ["negative distance", 0] : ["similarity", 1];
  const what = info.regions ? "the best parts of the two images" : "the two images";
  return `${value}: ${measure} of ${what} according to ${info.extractor}. ${best} means no difference.`;
}

/** A table as CSV (RFC 4180). */
export function csv(rows) {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : (value ?? ""));
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Save a text as a file. */
export function save(name, text, type) {
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(new Blob([text], { type })),
    download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Copy a text; resolves to whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS, only this old way works.
    const area = Object.assign(document.createElement("textarea"), { value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
