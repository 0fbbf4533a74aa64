// Requests to the service, with error messages and retries.

// For responses of a proxy, and of 401, whose message names a header and is for programs.
const MESSAGES = {
  401: "The key is missing or wrong.",
  413: "The file is too large for this service.",
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
 * Send a request to a path relative to the page; resolves to the JSON of the response, or null without a body.
 *
 * options: method, body (FormData, or an object that is sent as JSON), parameters (lists are repeated, null and ""
 * omitted), key, signal, onWait(seconds), called before each retry after 429 or 503, and onStatus(status), called if the
 * request succeeds.
 */
export async function call(
  path, { parameters = {}, body, key, onWait = () => {}, onStatus = () => {}, ...options } = {},
) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of [value].flat()) if ((each ?? "") !== "") url.searchParams.append(name, each);
  }
  const headers = {};
  if (key) headers["X-API-Key"] = key;
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  for (let attempt = 1; ; attempt += 1) {
    const response = await reach(url, { ...options, headers, body });
    if (response.ok) {
      onStatus(response.status);
      return response.status === 204 ? null : content(response);
    }
    const wait = retryAfter(response);
    if (wait === null || attempt === MAX_ATTEMPTS) throw await failure(response);
    onWait(wait);
    await sleep(wait, options.signal);
  }
}

const reach = (url, options) =>
  orFail(fetch(url, options), "The service can’t be reached. Check that it runs and that this computer is online.");

const content = (response) => orFail(response.json(), "The response of the service is incomplete.");

async function orFail(promise, message) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError(0, message);
  }
}

// Seconds to wait before a retry, or null if a retry does not help.
function retryAfter({ status, headers }) {
  if (status !== 429 && status !== 503) return null;
  return Math.min(Math.max(Number(headers.get("Retry-After")) || 3, 1), 60);
}

async function failure(response) {
  const { status } = response;
  // A proxy sends other responses than JSON.
  let { message } = await response.json().catch(() => ({}));
  if (typeof message !== "string" || !message || status === 401) {
    message = MESSAGES[status] ?? `The service failed with status ${status}. Its log describes the error.`;
  }
  return new ServiceError(status, message);
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.throwIfAborted();
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
