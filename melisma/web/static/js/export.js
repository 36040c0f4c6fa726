// Downloads: the menu, and the way of a file to the disk.
import * as api from "./api.js";
import { $, emit } from "./events.js";
import { t } from "./i18n.js";
import { session } from "./session.js";

export async function save(path) {
  try {
    const { blob, name } = await api.download(session.id, path);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    emit("say", t("exported", { name }));
  } catch (error) {
    emit("failure", error);
  }
}

export const exportAs = (kind) => save(`/export/${kind}`);

function open(shown) {
  $("export-menu").hidden = !shown;
  $("export").setAttribute("aria-expanded", String(shown));
  if (shown) $("export-menu").querySelector("button").focus();
}

export function setUpExport() {
  const menu = $("export-menu");
  const items = [...menu.querySelectorAll("[data-export]")];
  $("export").addEventListener("click", () => open(menu.hidden));
  for (const item of items) {
    item.addEventListener("click", () => {
      open(false);
      $("export").focus();
      exportAs(item.dataset.export);
    });
  }
  menu.addEventListener("keydown", (event) => {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (way) items[(items.indexOf(document.activeElement) + way + items.length) % items.length].focus();
    else if (event.key === "Escape") {
      open(false);
      $("export").focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".menu")) open(false);
  });
}
