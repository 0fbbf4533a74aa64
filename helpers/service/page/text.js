// Sizes and scores as text.

import { megabytes } from "./web/words.js";

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
