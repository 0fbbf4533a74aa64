// Calls of the service, its errors in words, and patience where it asks for some.

const WORDS = {
  400: "This image can’t be read.",
  401: "The key is missing or wrong.",
  403: "The service doesn’t allow this.",
  404: "This image is not in the gallery, or no longer.",
  411: "The service needs to know the size of the file first.",
  413: "The file is too large for this service.",
  415: "This file is not an image.",
  422: "The service can’t make sense of this search.",
};

// Tries of a search that the service is too busy for, before the person is asked.
const TRIES = 6;

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Ask the service; resolves to its JSON (null where there is none), or to a Blob.
 *
 * options: method, body (FormData, or an object that is sent as JSON), parameters (null and "" are left out), key,
 * signal, as ("json" or "blob"), and onWait(seconds), called before each wait that the service asked for by 429 or 503.
 */
export async function call(path, { parameters = {}, body, key, as = "json", onWait = () => {}, ...options } = {}) {
  const address = new URL(path, location.origin);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") address.searchParams.set(name, value);
  }
  const headers = {};
  if (key) headers["X-API-Key"] = key;
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(address, { ...options, headers, body });
    if (response.ok) return response.status === 204 ? null : content(response, as);
    const wait = waiting(response);
    if (wait === null || attempt === TRIES) throw await failure(response);
    onWait(wait);
    await sleep(wait, options.signal);
  }
}

const reach = (address, options) =>
  orFail(fetch(address, options), "The service can’t be reached. Is it running, and is this computer online?");

const content = (response, as) => orFail(response[as](), "The service’s result broke off.");

async function orFail(promise, words) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, words);
  }
}

// Seconds to wait before another try, or null where trying again is no use.
function waiting(response) {
  if (response.status !== 429 && response.status !== 503) return null;
  const seconds = Number(response.headers.get("Retry-After") ?? 3);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 60) : 3;
}

async function failure(response) {
  const { status } = response;
  let said = "";
  try {
    const { detail } = await response.json();
    said = Array.isArray(detail) ? detail.map((each) => each.msg).join("; ") : detail;
  } catch {
    // Something between us and the service answered: a status is all there is.
  }
  // What it says of a header is for programs.
  if (typeof said !== "string" || !said || status === 401) {
    said = WORDS[status] ?? `The service failed (status ${status}). Its log says why.`;
  }
  return new ServiceError(status, said);
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
