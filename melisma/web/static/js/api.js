// The server: every request goes through here, every failure becomes one line that says what to do.
import { t } from "./i18n.js";

const BASE = "/studio/api";

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, { query = {}, body, type, signal } = {}) {
  const words = new URLSearchParams(query).toString();
  const headers = {};
  if (type) headers["Content-Type"] = type;
  let response;
  try {
    response = await fetch(`${BASE}${path}${words ? `?${words}` : ""}`, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, t("errorNetwork"));
  }
  if (response.ok) return response;
  if (response.status === 429) throw new Failure(429, (await reason(response)) ?? t("errorBusy"));
  if (response.status === 404) throw new Failure(404, t("errorGone"));
  throw new Failure(response.status, (await reason(response)) ?? `${response.status} ${response.statusText}`);
}

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return undefined;
  }
}

const json = async (...request) => (await ask(...request)).json();
const session = (id, rest = "") => `/sessions/${encodeURIComponent(id)}${rest}`;

export const models = () => json("GET", "/models");
export const open = (file, name, model, signal) =>
  json("POST", "/sessions", { query: { name, ...(model && { model }) }, body: file, type: "application/octet-stream", signal });
export const state = (id) => json("GET", session(id));
export const close = (id) => ask("DELETE", session(id));
// When the page goes: the request outlives it.
export const leave = (id) => fetch(`${BASE}${session(id)}`, { method: "DELETE", keepalive: true }).catch(() => undefined);
export const edit = (id, edits, focus_s, everything) =>
  json("PUT", session(id, "/edits"), { query: { focus_s, everything }, body: JSON.stringify(edits), type: "application/json" });
export const chooseModel = (id, model) =>
  json("POST", session(id, "/model"), { body: JSON.stringify({ model }), type: "application/json" });
export const news = (id, generation, seen, wait_s) => json("GET", session(id, "/news"), { query: { generation, seen, wait_s } });
export const gain = (id) => json("GET", session(id, "/gain"));
export const midi = (id, file) => json("POST", session(id, "/midi"), { body: file, type: "application/octet-stream" });
export const curve = async (id) => new Float32Array(await (await ask("GET", session(id, "/curve"))).arrayBuffer());
export const picture = async (id) => new Uint8Array(await (await ask("GET", session(id, "/picture"))).arrayBuffer());
export const audio = async (id, which, first, last) =>
  new Int16Array(await (await ask("GET", session(id, "/audio"), { query: { which, first, last } })).arrayBuffer());
export const compare = (id, models) =>
  json("POST", session(id, "/compare"), { body: JSON.stringify({ models }), type: "application/json" });
export const compared = (id) => json("GET", session(id, "/compare"));

export async function download(id, path) {
  const response = await ask("GET", session(id, path));
  const said = response.headers.get("Content-Disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/.exec(said)?.[1];
  return { blob: await response.blob(), name: encoded ? decodeURIComponent(encoded) : "melisma" };
}
