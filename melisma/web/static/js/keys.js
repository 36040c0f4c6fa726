// The keyboard: one table says what a key does and what the help shows for it.
import * as doc from "./doc.js";
import { $, emit, on } from "./events.js";
import { exportAs } from "./export.js";
import { t } from "./i18n.js";
import { selectAll } from "./notes.js";
import { setTool } from "./pencil.js";
import * as player from "./player.js";
import { session } from "./session.js";
import { zoomBy } from "./view.js";

const other = () => (player.currentSide() === "result" ? "original" : "result");

function side() {
  player.setSide(other());
  emit("say", t("playing", { side: t(player.currentSide()) }));
}

export function undo() {
  if (doc.undo()) emit("say", t("undone"));
}

export function redo() {
  if (doc.redo()) emit("say", t("redone"));
}

// [what is shown, its string, matches(event), does]; lines without a function are explained only.
const command = (event) => event.ctrlKey || event.metaKey;
const plain = (key) => (event) => !command(event) && !event.altKey && event.key.toLowerCase() === key;
const TABLE = [
  [["Space"], "keyPlay", plain(" "), () => player.toggle()],
  [["A"], "keySide", plain("a"), side],
  [["Ctrl Z", "Ctrl Shift Z"], "keyUndo", (e) => command(e) && e.key.toLowerCase() === "z", (e) => (e.shiftKey ? redo() : undo())],
  [[], "", (e) => command(e) && e.key.toLowerCase() === "y", redo],
  [["←", "→"], "keyNext", plain("arrowright"), () => $("notes").querySelector("[tabindex='0']")?.focus()],
  [["↑", "↓"], "keySemitone"],
  [["Shift ↑", "Shift ↓"], "keyFine"],
  [["Alt ↑", "Alt ↓"], "keyOctave"],
  [["Delete"], "keyReset"],
  [["Ctrl A"], "keyAll", (e) => command(e) && e.key.toLowerCase() === "a", selectAll],
  [["V"], "keySelect", plain("v"), () => setTool("select")],
  [["D"], "keyDraw", plain("d"), () => setTool("draw")],
  [["+", "−"], "keyZoom", (e) => !command(e) && ["+", "=", "-"].includes(e.key), (e) => zoomBy(e.key === "-" ? 1 / 1.5 : 1.5)],
  [["Home", "End"], "keySeek", (e) => ["Home", "End"].includes(e.key), (e) => player.seek(e.key === "Home" ? 0 : session.info.seconds)],
  [["Ctrl O"], "keyOpen", (e) => command(e) && e.key.toLowerCase() === "o", () => $("file").click()],
  [["Ctrl S"], "keySave", (e) => command(e) && e.key.toLowerCase() === "s", () => exportAs("session")],
  [["?"], "help", plain("?"), () => $("help-dialog").showModal()],
];

function fillHelp() {
  $("help-keys").replaceChildren(
    ...TABLE.filter(([names]) => names.length).flatMap(([names, key]) => {
      const keys = document.createElement("div");
      names.forEach((name, index) => {
        if (index) keys.append(" ");
        const element = document.createElement("kbd");
        element.textContent = name;
        keys.append(element);
      });
      const text = document.createElement("div");
      text.textContent = t(key);
      return [keys, text];
    }),
  );
}

const typing = (element) => element?.matches("input:not([type=range]):not([type=checkbox]), select, textarea, audio");

export function setUpKeys() {
  fillHelp();
  on("language", fillHelp);
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || document.querySelector("dialog[open]")) return;
    const editing = document.body.dataset.stage === "editing";
    const entry = TABLE.find(([, , matches]) => matches?.(event));
    if (!entry || (!editing && !["keyOpen", "help"].includes(entry[1]))) return;
    // A focused button keeps its own Space; arrows and Home belong to a focused slider.
    const focused = document.activeElement;
    if (event.key === " " && focused?.matches("button:not(.note), input")) return;
    if (focused?.matches("input[type=range]") && (event.key.startsWith("Arrow") || ["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    entry[3](event);
  });
}
