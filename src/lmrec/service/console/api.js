// Talks to the service: JSON in and out, its error messages kept, a key asked for where one is needed.

const KEY = "lmrec-key"; // in sessionStorage: gone when the tab closes

/** An answer that is no success; `message` is the service's own. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

let askForKey = async () => false;

/** `ask(message)` gets a key from the person and promises whether there is one now. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const keepKey = (key) => sessionStorage.setItem(KEY, key);
export const dropKey = () => sessionStorage.removeItem(KEY);

export const get = (path, query, signal) => request("GET", withQuery(path, query), undefined, signal);
export const post = (path, body, signal) => request("POST", path, body, signal);
export const put = (path, body) => request("PUT", path, body);
export const del = (path) => request("DELETE", path);

/** One part of a path: ids may hold slashes and question marks. */
export const part = encodeURIComponent;

async function request(method, path, body, signal) {
  const response = await send(method, path, body, signal);
  if (response.ok) return response.json();
  const error = await errorOf(response);
  if (error.status === 401 && (await askForKey(error.message))) return request(method, path, body, signal);
  throw error;
}

async function send(method, path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "offline", `The service at ${location.host} does not answer. Is it still running?`);
  }
}

async function errorOf(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.code, error.message);
  } catch {
    return new ApiError(response.status, "unreadable", `The answer has the status ${response.status} and no message.`);
  }
}

function withQuery(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
