// Uploaded images in the browser's database, so that they survive a reload. Nothing is stored where that is not allowed.

const NAME = "lookalike";
const STORE = "uploads";
// Uploads that are kept, the latest ones.
const MOST = 50;

let opened = null;

const resultOf = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result ?? null);
    request.onerror = () => reject(request.error);
  });

function open() {
  if (!opened) {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    opened = resultOf(request);
  }
  return opened;
}

/** The result of an action on the store, or null if the browser does not allow one. */
async function using(mode, action) {
  try {
    return await resultOf(action((await open()).transaction(STORE, mode).objectStore(STORE)));
  } catch {
    return null;
  }
}

/** Keep a file under its name in the URL; names sort by time. */
export async function storeUpload(value, file) {
  // Bytes, because WebKit's private windows do not store files.
  const stored = { name: file.name, type: file.type, bytes: await file.arrayBuffer() };
  await using("readwrite", (store) => store.put(stored, value));
  const names = (await using("readonly", (store) => store.getAllKeys())) ?? [];
  for (const name of names.slice(0, -MOST)) await using("readwrite", (store) => store.delete(name));
}

/** The file of an earlier upload, or null. */
export async function storedUpload(value) {
  const stored = await using("readonly", (store) => store.get(value));
  return stored && new File([stored.bytes], stored.name, { type: stored.type });
}
