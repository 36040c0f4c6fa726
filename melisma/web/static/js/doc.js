// The edits: one document, as melisma.editing reads it, and its history. Steps keep a canonical order, so that the order
// of clicks does not change the sound; moves and drawn curves stay in the order in which they were made.
import { emit } from "./events.js";

const RANK = { follow: 0, snap: 1, vibrato: 2, smooth: 3, move: 4, draw: 4, transpose: 5 };
const MOST_HISTORY = 200;
const EMPTY = { steps: [], formant_semitones: 0, speed: 1 };

let now = structuredClone(EMPTY);
let before = [];
let after = [];

export const edits = () => now;
export const canUndo = () => before.length > 0;
export const canRedo = () => after.length > 0;

export function reset(loaded = EMPTY) {
  now = structuredClone(loaded);
  before = [];
  after = [];
  emit("history");
}

// Change the document through a function that gets a copy. focusS: seconds of the recording that are heard first.
export function change(mutate, focus = {}) {
  const next = structuredClone(now);
  mutate(next);
  next.steps = next.steps
    .map((step, index) => [RANK[step.kind], index, step])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map((entry) => entry[2]);
  if (JSON.stringify(next) === JSON.stringify(now)) return false;
  before.push({ edits: now, focus });
  if (before.length > MOST_HISTORY) before.shift();
  after = [];
  now = next;
  emit("history");
  emit("edited", focus);
  return true;
}

export function undo() {
  const last = before.pop();
  if (!last) return false;
  after.push({ edits: now, focus: last.focus });
  now = last.edits;
  emit("history");
  emit("edited", last.focus);
  return true;
}

export function redo() {
  const next = after.pop();
  if (!next) return false;
  before.push({ edits: now, focus: next.focus });
  now = next.edits;
  emit("history");
  emit("edited", next.focus);
  return true;
}

// The only step of a kind, or undefined.
export const step = (kind, document = now) => document.steps.find((each) => each.kind === kind);

// Put the only step of a kind in place, or take it away where value is null.
export function put(document, kind, value) {
  document.steps = document.steps.filter((each) => each.kind !== kind);
  if (value) document.steps.push({ kind, ...value });
}

const same = (a, b) => Math.abs(a - b) < 1e-6;
const isMoveOf = (note) => (each) => each.kind === "move" && same(each.start_s, note.start_s) && same(each.stop_s, note.stop_s);

export const movedBy = (note) => now.steps.find(isMoveOf(note))?.semitones ?? 0;

// Set how far a note is moved, in semitones against what the other steps make of it.
export function moveNote(document, note, semitones) {
  const rounded = Math.round(Math.max(-48, Math.min(48, semitones)) * 1000) / 1000;
  document.steps = document.steps.filter((each) => !isMoveOf(note)(each));
  if (rounded !== 0) document.steps.push({ kind: "move", start_s: note.start_s, stop_s: note.stop_s, semitones: rounded });
}

// Take away the note's move and all that was drawn within it.
export function putBack(document, note) {
  moveNote(document, note, 0);
  document.steps = document.steps.filter((each) => {
    if (each.kind !== "draw") return true;
    const first = each.points[0][0];
    const last = each.points.at(-1)[0];
    return last < note.start_s || first > note.stop_s;
  });
}
