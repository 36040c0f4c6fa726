// Drawing: the rows and curves of the piano roll, its keys, and the mel spectrogram below. Only what is in view.
import { $, on } from "./events.js";
import { MAP } from "./colours.js";
import { session } from "./session.js";
import { colour } from "./theme.js";
import { isBlack, noteName, pitchOf, secondsAt, view, xOf, yOf } from "./view.js";

const TILE = 2048; // frames of the spectrogram in one picture
let tiles = [];
let asked = false;

// A canvas at the screen's own resolution, cleared; returns its context in CSS pixels.
function fresh(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function drawRows(context, width, height, top) {
  for (let pitch = view.low; pitch <= view.high; pitch += 1) {
    const y = yOf(pitch + 0.5) - top;
    if (y > height || y + view.row < 0) continue;
    context.fillStyle = colour(isBlack(pitch) ? "row-black" : "row-white");
    context.fillRect(0, y, width, view.row);
    if (pitch % 12 === 0 || pitch % 12 === 5) {
      context.fillStyle = colour(pitch % 12 === 0 ? "line" : "row-line");
      context.fillRect(0, y + view.row - 1, width, 1);
    }
  }
}

function drawTimes(context, width, height, left) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60].find((each) => xOf(each) >= 70) ?? 120;
  context.font = "10px system-ui, sans-serif";
  for (let seconds = Math.ceil(secondsAt(left) / step) * step; xOf(seconds) < left + width; seconds += step) {
    const x = Math.round(xOf(seconds) - left);
    context.fillStyle = colour("row-line");
    context.fillRect(x, 0, 1, height);
    context.fillStyle = colour("quiet");
    context.fillText(step < 1 ? seconds.toFixed(1) : `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`, x + 4, 12);
  }
}

function drawCurve(context, curve, style, width, left, top, lineWidth) {
  const rate = session.info.frame_rate_hz;
  const first = Math.max(0, Math.floor(secondsAt(left) * rate) - 1);
  const last = Math.min(curve.length, Math.ceil(secondsAt(left + width) * rate) + 1);
  context.strokeStyle = style;
  context.lineWidth = lineWidth;
  context.lineJoin = "round";
  context.beginPath();
  let pen = false;
  for (let frame = first; frame < last; frame += 1) {
    const hz = curve[frame];
    if (hz > 0) {
      const x = xOf((frame + 0.5) / rate) - left;
      const y = yOf(pitchOf(hz)) - top;
      if (pen) context.lineTo(x, y);
      else context.moveTo(x, y);
    }
    pen = hz > 0;
  }
  context.stroke();
}

function drawRoll() {
  const scroller = $("scroller");
  const [width, height] = [scroller.clientWidth, scroller.clientHeight];
  const canvas = $("roll");
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = fresh(canvas, width, height);
  const [left, top] = [scroller.scrollLeft, scroller.scrollTop];
  drawRows(context, width, height, top);
  drawTimes(context, width, height, left);
  context.fillStyle = colour("back"); // nothing is sung after the end
  context.fillRect(xOf(view.seconds) - left, 0, Math.max(0, width + left - xOf(view.seconds)), height);
  drawCurve(context, session.recorded, colour("recorded"), width, left, top, 1.2);
  drawCurve(context, session.sung, colour("sung"), width, left, top, 2.2);
}

function drawKeys() {
  const canvas = $("keys");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const context = fresh(canvas, width, height);
  const top = $("scroller").scrollTop;
  context.font = "10px system-ui, sans-serif";
  for (let pitch = view.low; pitch <= view.high; pitch += 1) {
    const y = yOf(pitch + 0.5) - top;
    context.fillStyle = colour("sheet");
    context.fillRect(0, y, width, view.row);
    if (isBlack(pitch)) {
      context.fillStyle = colour("key-black");
      context.fillRect(0, y + 0.5, width * 0.6, view.row - 1);
    }
    context.fillStyle = colour("line");
    context.fillRect(0, y + view.row - 0.5, width, isBlack(pitch) ? 0 : 0.5);
    if (pitch % 12 === 0 || (view.row >= 22 && !isBlack(pitch))) {
      context.fillStyle = colour("text");
      context.textAlign = "right";
      context.fillText(noteName(pitch), width - 4, y + view.row - (view.row - 8) / 2);
    }
  }
}

// The spectrogram as pictures of TILE frames, made once for a recording.
function makeTiles() {
  tiles = [];
  const bands = session.info.bands;
  const frames = session.picture.length / bands;
  for (let start = 0; start < frames; start += TILE) {
    const count = Math.min(TILE, frames - start);
    const image = new ImageData(count, bands);
    const words = new Uint32Array(image.data.buffer);
    for (let frame = 0; frame < count; frame += 1) {
      for (let band = 0; band < bands; band += 1) {
        words[(bands - 1 - band) * count + frame] = MAP[session.picture[(start + frame) * bands + band]];
      }
    }
    const canvas = new OffscreenCanvas(count, bands);
    canvas.getContext("2d").putImageData(image, 0, 0);
    tiles.push({ start, count, canvas });
  }
}

function drawSpectrum() {
  const canvas = $("spectrum");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const context = fresh(canvas, width, height);
  const left = $("scroller").scrollLeft;
  const rate = session.info.frame_rate_hz;
  for (const { start, count, canvas: tile } of tiles) {
    const x = xOf(start / rate) - left;
    const wide = xOf(count / rate);
    if (x < width && x + wide > 0) context.drawImage(tile, x, 0, wide, height);
  }
}

function draw() {
  asked = false;
  if (!session.info || document.body.dataset.stage !== "editing") return;
  drawRoll();
  drawKeys();
  drawSpectrum();
}

export function setUpRoll() {
  on("redraw", () => {
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  });
  on("recording", makeTiles);
}
