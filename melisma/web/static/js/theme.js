// Light or dark: as the system has it, until the switch is used.
import { $, emit, remember, remembered } from "./events.js";

const system = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const chosen = remembered("theme", "");
  document.documentElement.dataset.theme = chosen || (system.matches ? "dark" : "light");
  emit("redraw");
}

export function setUpTheme() {
  system.addEventListener("change", apply);
  $("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember("theme", next);
    document.documentElement.dataset.theme = next;
    emit("redraw");
  });
  apply();
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
