// Where a second and a pitch lie on the screen. Seconds are those of the recording, whatever the tempo.
import { $, emit } from "./events.js";

export const view = { perSecond: 100, row: 15, low: 48, high: 84, seconds: 1 };
const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];

export const xOf = (seconds) => seconds * view.perSecond;
export const secondsAt = (x) => x / view.perSecond;
export const yOf = (pitch) => (view.high + 0.5 - pitch) * view.row;
export const pitchAt = (y) => view.high + 0.5 - y / view.row;
export const pitchOf = (hz) => 69 + 12 * Math.log2(hz / 440);
export const hzOf = (pitch) => 440 * 2 ** ((pitch - 69) / 12);
export const noteName = (pitch) => {
  const number = Math.round(pitch);
  return `${NAMES[((number % 12) + 12) % 12]}${Math.floor(number / 12) - 1}`;
};
export const isBlack = (pitch) => [1, 3, 6, 8, 10].includes(((pitch % 12) + 12) % 12);

// Rows for all that is sung, with room to move it.
export function fitPitches(notes, curves) {
  let low = Infinity;
  let high = -Infinity;
  for (const note of notes) {
    low = Math.min(low, note.pitch, note.sung_pitch);
    high = Math.max(high, note.pitch, note.sung_pitch);
  }
  if (!notes.length) {
    for (const hz of curves) {
      if (hz > 0) {
        low = Math.min(low, pitchOf(hz));
        high = Math.max(high, pitchOf(hz));
      }
    }
  }
  if (!Number.isFinite(low)) [low, high] = [57, 69];
  // At least as many rows as the window is high.
  const spare = Math.ceil($("scroller").clientHeight / view.row) - (Math.ceil(high) - Math.floor(low) + 1);
  const room = Math.max(9, Math.ceil(spare / 2));
  view.low = Math.max(12, Math.floor(low) - room);
  view.high = Math.min(115, Math.ceil(high) + room);
}

export function applySize() {
  const content = $("content");
  const scroller = $("scroller");
  content.style.width = `${Math.max(scroller.clientWidth, xOf(view.seconds))}px`;
  content.style.height = `${Math.max(scroller.clientHeight, (view.high - view.low + 1) * view.row)}px`;
  emit("sized");
  emit("redraw");
}

const fitting = () => ($("scroller").clientWidth - 8) / view.seconds;

// Zoom so that the second under x (of the scroller) stays where it is.
export function zoomTo(perSecond, x = $("scroller").clientWidth / 2) {
  const scroller = $("scroller");
  const seconds = secondsAt(scroller.scrollLeft + x);
  view.perSecond = Math.min(1200, Math.max(Math.min(fitting(), 40), perSecond));
  applySize();
  scroller.scrollLeft = xOf(seconds) - x;
}

export const zoomBy = (factor, x) => zoomTo(view.perSecond * factor, x);
export const zoomFit = () => zoomTo(fitting());

// Bring a second (and a pitch) into view.
export function reveal(seconds, pitch) {
  const scroller = $("scroller");
  const x = xOf(seconds);
  if (x < scroller.scrollLeft + 24 || x > scroller.scrollLeft + scroller.clientWidth - 24) {
    scroller.scrollLeft = x - scroller.clientWidth * 0.25;
  }
  if (pitch !== undefined) {
    const y = yOf(pitch);
    if (y < scroller.scrollTop + view.row || y > scroller.scrollTop + scroller.clientHeight - 2 * view.row) {
      scroller.scrollTop = y - scroller.clientHeight / 2;
    }
  }
}

export function setUpView() {
  const scroller = $("scroller");
  scroller.addEventListener("scroll", () => emit("redraw"), { passive: true });
  scroller.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), event.clientX - scroller.getBoundingClientRect().left);
  }, { passive: false });
  new ResizeObserver(() => applySize()).observe(scroller);
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("zoom-fit").addEventListener("click", zoomFit);
}
