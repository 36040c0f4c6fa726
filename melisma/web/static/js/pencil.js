// The drawing tool, and clicks on the empty roll.
import * as doc from "./doc.js";
import { $, emit, on } from "./events.js";
import { t } from "./i18n.js";
import { select } from "./notes.js";
import { seek } from "./player.js";
import { hzOf, pitchAt, secondsAt, xOf, yOf } from "./view.js";

let tool = "select";
let line = null; // points [seconds, pitch] while the pen is down

export function setTool(next) {
  tool = next;
  $("scroller").classList.toggle("drawing", tool === "draw");
  for (const each of ["select", "draw"]) $(`tool-${each}`).setAttribute("aria-checked", String(each === tool));
}

function at(event) {
  const box = $("content").getBoundingClientRect();
  return [Math.max(0, secondsAt(event.clientX - box.left)), pitchAt(event.clientY - box.top)];
}

function down(event) {
  if (event.button !== 0 || event.target.closest(".note")) return;
  if (tool === "draw") {
    line = [at(event)];
    $("content").setPointerCapture(event.pointerId);
    event.preventDefault();
  }
}

function move(event) {
  if (!line) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) {
    const point = at(each);
    // Drawn to the right: a line goes on; back to the left takes points away.
    while (line.length && line.at(-1)[0] >= point[0] - 0.002) line.pop();
    line.push(point);
  }
  preview();
}

function preview() {
  const context = $("roll").getContext("2d");
  const scroller = $("scroller");
  emit("redraw");
  requestAnimationFrame(() => {
    if (!line) return;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--playhead");
    context.lineWidth = 2.5;
    context.beginPath();
    line.forEach(([seconds, pitch], index) => {
      const [x, y] = [xOf(seconds) - scroller.scrollLeft, yOf(pitch) - scroller.scrollTop];
      if (index) context.lineTo(x, y);
      else context.moveTo(x, y);
    });
    context.stroke();
  });
}

function up(event) {
  if (!line) {
    if (tool === "select" && event.type === "click" && !event.target.closest(".note")) {
      select(null);
      seek(at(event)[0]);
    }
    return;
  }
  const points = line.map(([seconds, pitch]) => [Math.round(seconds * 1e4) / 1e4, Math.round(hzOf(pitch) * 100) / 100]);
  line = null;
  if (event.type === "pointerup" && points.length > 1) {
    doc.change((document) => document.steps.push({ kind: "draw", points }), { start_s: points[0][0], stop_s: points.at(-1)[0] });
    emit("say", t("drawn"));
  }
  emit("redraw");
}

export function setUpPencil() {
  const content = $("content");
  content.addEventListener("pointerdown", down);
  content.addEventListener("pointermove", move);
  content.addEventListener("pointerup", up);
  content.addEventListener("pointercancel", up);
  content.addEventListener("click", up);
  $("tool-select").addEventListener("click", () => setTool("select"));
  $("tool-draw").addEventListener("click", () => setTool("draw"));
  on("opened", () => setTool("select"));
}
