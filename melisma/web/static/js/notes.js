// Notes as elements: each is a slider of pitch, so that mouse, finger, keyboard and screen reader move it alike.
import * as doc from "./doc.js";
import { $, emit, on } from "./events.js";
import { t } from "./i18n.js";
import { session } from "./session.js";
import { noteName, reveal, view, xOf, yOf } from "./view.js";

const selected = new Set(); // indices
let current = 0; // the one that takes the focus
let drag = null;

export const selectedNotes = () => [...selected].sort((a, b) => a - b).map((index) => session.notes[index]).filter(Boolean);

function place(element, note, extra = 0) {
  const pitch = note.sung_pitch + extra;
  const cents = Math.round((pitch - Math.round(pitch)) * 100);
  const moved = Math.round((pitch - note.pitch) * 100) / 100;
  element.style.transform = `translate(${xOf(note.start_s)}px, ${yOf(pitch + 0.5)}px)`;
  element.style.width = `${Math.max(5, xOf(note.stop_s - note.start_s))}px`;
  element.style.height = `${view.row}px`;
  element.classList.toggle("moved", Math.abs(moved) > 0.015);
  element.setAttribute("aria-valuenow", pitch.toFixed(2));
  element.setAttribute("aria-valuetext", t("a11yNote", {
    name: noteName(pitch), cents: cents > 0 ? `+${cents}` : cents, start: note.start_s.toFixed(1), stop: note.stop_s.toFixed(1),
    moved: Math.abs(moved) > 0.015 ? t("a11yMoved", { st: moved > 0 ? `+${moved}` : moved }) : "",
  }));
  const wide = xOf(note.stop_s - note.start_s) > 30;
  element.firstChild.textContent = wide ? noteName(pitch) : "";
}

function build() {
  const box = $("notes");
  const elements = session.notes.map((note, index) => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "note";
    element.dataset.index = index;
    element.setAttribute("role", "slider");
    element.setAttribute("aria-orientation", "vertical");
    element.setAttribute("aria-valuemin", "12");
    element.setAttribute("aria-valuemax", "115");
    element.append(document.createElement("span"));
    return element;
  });
  box.replaceChildren(...elements);
  selected.clear();
  current = 0;
  placeAll();
}

function placeAll() {
  const elements = $("notes").children;
  if (elements.length !== session.notes.length) {
    build();
    return;
  }
  session.notes.forEach((note, index) => {
    const element = elements[index];
    element.tabIndex = index === current ? 0 : -1;
    element.classList.toggle("selected", selected.has(index));
    element.setAttribute("aria-label", `${index + 1} / ${session.notes.length}`);
    place(element, note, drag && selected.has(index) ? drag.semitones : 0);
  });
}

export function select(index, more = false) {
  if (!more) selected.clear();
  if (index !== null) {
    if (more && selected.has(index)) selected.delete(index);
    else selected.add(index);
    current = index;
  }
  placeAll();
  emit("selection");
}

export function selectAll() {
  session.notes.forEach((_, index) => selected.add(index));
  placeAll();
  emit("selection");
  emit("say", t("selectedAll", { count: session.notes.length }));
}

function focusOn(index) {
  const note = session.notes[index];
  if (!note) return;
  select(index);
  $("notes").children[index].focus({ preventScroll: true });
  reveal(note.start_s, note.sung_pitch);
}

const around = (notes) => ({ start_s: Math.min(...notes.map((n) => n.start_s)), stop_s: Math.max(...notes.map((n) => n.stop_s)) });

// Move the selected notes; each keeps what it was moved before. The screen shows it before the server has answered.
export function moveSelected(semitones) {
  const notes = selectedNotes();
  if (!notes.length || !semitones) return;
  doc.change((document) => {
    for (const note of notes) doc.moveNote(document, note, doc.movedBy(note) + semitones);
  }, around(notes));
  for (const note of notes) note.sung_pitch += semitones;
  placeAll();
  emit("selection");
}

export function shiftSelectedTo(semitones) {
  const notes = selectedNotes();
  if (!notes.length) return;
  doc.change((document) => {
    for (const note of notes) doc.moveNote(document, note, semitones);
  }, around(notes));
}

export function snapSelected() {
  const notes = selectedNotes();
  if (!notes.length) return;
  doc.change((document) => {
    for (const note of notes) doc.moveNote(document, note, doc.movedBy(note) + Math.round(note.sung_pitch) - note.sung_pitch);
  }, around(notes));
}

export function resetSelected() {
  const notes = selectedNotes();
  if (!notes.length) return;
  const changed = doc.change((document) => {
    for (const note of notes) doc.putBack(document, note);
  }, around(notes));
  if (changed) emit("say", t("reset"));
}

function onKey(event) {
  const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (event.ctrlKey || event.metaKey) return;
  if (step) moveSelected(step * (event.shiftKey ? 0.1 : event.altKey ? 12 : 1));
  else if (way) focusOn(Math.max(0, Math.min(session.notes.length - 1, current + way)));
  else if (event.key === "Delete" || event.key === "Backspace") resetSelected();
  else if (event.key === "Enter") emit("listenTo", around(selectedNotes()));
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function startDrag(event) {
  const element = event.target.closest(".note");
  if (!element || event.button !== 0) return;
  const index = Number(element.dataset.index);
  if (event.shiftKey) {
    select(index, true);
    return;
  }
  if (!selected.has(index)) select(index);
  current = index;
  element.focus({ preventScroll: true });
  element.setPointerCapture(event.pointerId);
  drag = { y: event.clientY, semitones: 0, element };
  event.preventDefault();
}

function whileDrag(event) {
  if (!drag) return;
  const exact = (drag.y - event.clientY) / view.row;
  // Whole semitones, as the rows suggest; with Alt (or Shift) in cents.
  drag.semitones = event.altKey || event.shiftKey ? Math.round(exact * 100) / 100 : Math.round(exact);
  placeAll();
}

function endDrag(event) {
  if (!drag) return;
  const { semitones } = drag;
  drag = null;
  if (event.type === "pointerup" && semitones) moveSelected(semitones);
  else placeAll();
}

export function setUpNotes() {
  const box = $("notes");
  box.addEventListener("pointerdown", startDrag);
  box.addEventListener("pointermove", whileDrag);
  box.addEventListener("pointerup", endDrag);
  box.addEventListener("pointercancel", endDrag);
  box.addEventListener("keydown", onKey);
  box.addEventListener("dblclick", (event) => event.target.closest(".note") && emit("listenTo", around(selectedNotes())));
  box.addEventListener("focusin", (event) => {
    const index = Number(event.target.dataset?.index ?? -1);
    if (index >= 0 && !selected.has(index) && !drag) select(index);
  });
  on("opened", build);
  on("notes", () => {
    placeAll();
    emit("selection");
  });
  on("sized", placeAll);
  on("language", placeAll);
}
