// The language: which one, and how it reaches the page.
import { STRINGS } from "./strings.js";
import { $, emit, remember, remembered } from "./events.js";

let language = remembered("language", navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en");

export function t(key, values = {}) {
  const text = STRINGS[key]?.[language];
  if (text === undefined) throw new Error(`no string ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function fill() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-aria]")) element.setAttribute("aria-label", t(element.dataset.aria));
  for (const element of document.querySelectorAll("[data-label]")) label(element, element.dataset.label);
  $("language").textContent = t("language");
  $("language").lang = language === "zh" ? "en" : "zh-Hans";
}

export function label(element, key) {
  element.dataset.label = key;
  element.setAttribute("aria-label", t(key));
  element.title = t(key);
}

export function setUpLanguage() {
  $("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    remember("language", language);
    fill();
    emit("language");
  });
  fill();
}
