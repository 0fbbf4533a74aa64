// Requests to the service, with error messages and retries.

const MESSAGES = {
  400: "The image can’t be read.",
  401: "The key is missing or wrong.",
  403: "The service does not allow this.",
  404: "The image is not in the gallery.",
  413: "The file is too large for this service.",
  415: "The file is not an image.",
  422: "The request is not valid.",
};

// Attempts while the service is busy.
const MAX_ATTEMPTS = 6;

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Send a request to a path relative to the page; resolves to the JSON of the response (null if it has no body), or to a Blob.
 *
 * options: method, body (FormData, or an object that is sent as JSON), parameters (null and "" are omitted), key,
 * signal, as ("json" or "blob"), and onWait(seconds), called before each retry after 429 or 503.
 */
export async function call(path, { parameters = {}, body, key, as = "json", onWait = () => {}, ...options } = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const headers = {};
  if (key) headers["X-API-Key"] = key;
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(url, { ...options, headers, body });
    if (response.ok) return response.status === 204 ? null : content(response, as);
    const wait = retryAfter(response);
    if (wait === null || attempt === MAX_ATTEMPTS) throw await failure(response);
    onWait(wait);
    await sleep(wait, options.signal);
  }
}

const reach = (url, options) =>
  orFail(fetch(url, options), "The service can’t be reached. Check that it runs and that this computer is online.");

const content = (response, as) => orFail(response[as](), "The response of the service is incomplete.");

async function orFail(promise, message) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, message);
  }
}

// Seconds to wait before a retry, or null if a retry does not help.
function retryAfter(response) {
  if (response.status !== 429 && response.status !== 503) return null;
  const seconds = Number(response.headers.get("Retry-After") ?? 3);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), 60) : 3;
}

async function failure(response) {
  const { status } = response;
  let message = "";
  try {
    const { detail } = await response.json();
    message = Array.isArray(detail) ? detail.map((each) => each.msg).join("; ") : detail;
  } catch {
    // A proxy sent the response.
  }
  // The detail of 401 names a header and is for programs.
  if (typeof message !== "string" || !message || status === 401) {
    message = MESSAGES[status] ?? `The service failed with status ${status}. Its log describes the error.`;
  }
  return new ServiceError(status, message);
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
