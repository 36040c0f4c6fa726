// The panel at the right: sliders and switches that write steps of the document, and show what stands in it.
import * as api from "./api.js";
import * as doc from "./doc.js";
import { $, emit, on } from "./events.js";
import { t } from "./i18n.js";
import { resetSelected, selectedNotes, shiftSelectedTo, snapSelected } from "./notes.js";
import { chooseModel, send, session } from "./session.js";
import { noteName, reveal } from "./view.js";

const UNITS = {
  "%": (value) => `${Math.round(value * 100)} %`,
  ms: (value) => `${value} ms`,
  cents: (value) => `${value} ${t("cents")}`,
  Hz: (value) => `${value.toFixed(1)} Hz`,
  st: (value) => `${value > 0 ? "+" : ""}${value} ${t("st")}`,
  x: (value) => `× ${value.toFixed(2)}`,
};
const value = (id) => Number($(id).value);

function tell(id) {
  const input = $(id);
  const text = UNITS[input.dataset.unit](Number(input.value));
  input.parentElement.querySelector("output").textContent = text;
  input.setAttribute("aria-valuetext", text);
}

// A slider: shows its value while it moves, writes when it is let go.
function slider(id, write) {
  $(id).addEventListener("input", () => tell(id));
  $(id).addEventListener("change", () => doc.change(write));
}

function writeTune(document) {
  const on = $("tune-on").checked;
  const chromatic = $("tune-mode").value === "chromatic";
  doc.put(document, "snap", on && {
    scale: chromatic ? "chromatic" : `${$("tune-root").value}:${$("tune-mode").value}`,
    strength: value("tune-strength"),
    speed_ms: value("tune-speed"),
  });
}

function writeVibrato(document) {
  const [keep, depth] = [value("vibrato-keep"), value("vibrato-depth")];
  doc.put(document, "vibrato", (keep !== 1 || depth > 0) && { keep, depth_cents: depth, rate_hz: value("vibrato-rate") });
}

function writeTranspose(document) {
  doc.put(document, "transpose", value("transpose") !== 0 && { semitones: value("transpose") });
}

// Put the document's values into the controls: after undo, and when a session is opened.
function show() {
  const snap = doc.step("snap");
  $("tune-on").checked = Boolean(snap);
  if (snap) {
    const [root, mode] = snap.scale === "chromatic" ? [$("tune-root").value, "chromatic"] : snap.scale.split(":");
    $("tune-root").value = root;
    $("tune-mode").value = mode;
    $("tune-strength").value = snap.strength;
    $("tune-speed").value = snap.speed_ms;
  }
  for (const id of ["tune-root", "tune-mode", "tune-strength", "tune-speed"]) $(id).disabled = !snap;
  $("tune-root").disabled = !snap || $("tune-mode").value === "chromatic";
  const vibrato = doc.step("vibrato") ?? { keep: 1, depth_cents: 0 };
  $("vibrato-keep").value = vibrato.keep;
  $("vibrato-depth").value = vibrato.depth_cents;
  if (vibrato.rate_hz) $("vibrato-rate").value = vibrato.rate_hz;
  $("transpose").value = doc.step("transpose")?.semitones ?? 0;
  $("formant").value = doc.edits().formant_semitones;
  $("speed").value = doc.edits().speed;
  const melody = doc.step("follow")?.melody;
  $("melody-text").textContent = melody ? t("melodySome", { count: melody.length }) : t("melodyNone");
  $("melody-clear").hidden = !melody;
  document.querySelectorAll(".slider input").forEach((input) => tell(input.id));
  $("everything").checked = session.everything;
  $("undo").disabled = !doc.canUndo();
  $("redo").disabled = !doc.canRedo();
  showNote();
}

function showNote() {
  const notes = selectedNotes();
  const none = notes.length === 0;
  $("note-title").textContent = none
    ? t("noteNone")
    : notes.length === 1 ? t("noteOne", { name: noteName(notes[0].sung_pitch) }) : t("noteMany", { count: notes.length });
  $("note-hint").hidden = !none;
  $("note-hint").textContent = session.info && !session.notes.length ? t("noVoice") : t("noteHint");
  $("note-controls").hidden = none;
  if (!none && document.activeElement !== $("note-shift")) $("note-shift").value = doc.movedBy(notes[0]);
}

function fillModels(list) {
  for (const id of ["model", "compare-a", "compare-b"]) {
    const kept = $(id).value;
    $(id).replaceChildren(...list.map((name) => new Option(name, name)));
    if (list.includes(kept)) $(id).value = kept;
  }
  if (list.length > 1 && $("compare-b").value === $("compare-a").value) $("compare-b").value = list[1];
}

export async function loadChoices() {
  const told = await api.models();
  $("tune-root").replaceChildren(...told.roots.map((root) => new Option(root.replace("#", "♯"), root)));
  $("tune-mode").replaceChildren(...told.modes.map((mode) => new Option(mode, mode)));
  fillModels(told.models);
  session.model ||= told.default;
}

async function importMelody(file) {
  try {
    const { melody } = await api.midi(session.id, file);
    doc.change((document) => doc.put(document, "follow", { melody }));
  } catch (error) {
    emit("failure", error);
  }
}

export function setUpPanel() {
  for (const id of ["tune-strength", "tune-speed"]) slider(id, writeTune);
  for (const id of ["tune-on", "tune-root", "tune-mode"]) $(id).addEventListener("change", () => doc.change(writeTune));
  for (const id of ["vibrato-keep", "vibrato-depth", "vibrato-rate"]) slider(id, writeVibrato);
  slider("transpose", writeTranspose);
  slider("formant", (document) => { document.formant_semitones = value("formant"); });
  slider("speed", (document) => { document.speed = value("speed"); });
  $("note-shift").addEventListener("change", () => shiftSelectedTo(value("note-shift")));
  $("note-snap").addEventListener("click", snapSelected);
  $("note-reset").addEventListener("click", resetSelected);
  $("melody-open").addEventListener("click", () => $("midi-file").click());
  $("midi-file").addEventListener("change", () => {
    const [file] = $("midi-file").files;
    if (file) importMelody(file);
    $("midi-file").value = "";
  });
  $("melody-clear").addEventListener("click", () => doc.change((document) => doc.put(document, "follow", null)));
  $("model").addEventListener("change", () => chooseModel($("model").value).catch((error) => emit("failure", error)));
  $("everything").addEventListener("change", () => {
    session.everything = $("everything").checked;
    send();
  });
  $("panel-open").addEventListener("click", () => toggle(!$("panel").classList.contains("open")));
  $("panel-close").addEventListener("click", () => toggle(false));
  on("history", show);
  on("selection", showNote);
  on("language", show);
  on("opened", () => {
    $("model").value = session.model;
    show();
  });
  show();
}

function toggle(open) {
  $("panel").classList.toggle("open", open);
  $("panel-open").setAttribute("aria-expanded", String(open));
  const note = selectedNotes()[0] ?? session.notes[0];
  if (open && note) requestAnimationFrame(() => reveal(note.start_s, note.sung_pitch));
}
