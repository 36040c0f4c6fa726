// One small bus: parts of the page tell each other what happened, and none needs to know who listens.
const listeners = new Map();

export function on(name, listener) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(listener);
}

export function emit(name, detail) {
  for (const listener of listeners.get(name) ?? []) listener(detail);
}

export const $ = (id) => document.getElementById(id);

// What survives a reload; a browser may forbid it, then it does not.
export function remembered(key, fallback) {
  try { return localStorage.getItem(`melisma.${key}`) ?? fallback; } catch { return fallback; }
}

export function remember(key, value) {
  try { localStorage.setItem(`melisma.${key}`, value); } catch { /* forbidden: the choice holds until the reload */ }
}
