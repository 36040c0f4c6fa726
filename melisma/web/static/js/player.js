// Playing: the recording or the result, switched at the same place. A piece that changes while it plays is taken over in
// a short cross-fade, because a running source does not see what happens to its buffer.
import { $, emit, on } from "./events.js";
import { label, t } from "./i18n.js";
import * as doc from "./doc.js";
import { session } from "./session.js";

const FADE_S = 0.012;
let context = null;
let source = null;
let startedAt = 0;
let startedFrom = 0;
let stopAt = null;
let position = 0; // seconds of the recording
let side = "result";
let resultGain = 1;
let renewing = null;
const buffers = { original: null, result: null };

export const isPlaying = () => source !== null;
export const currentSide = () => side;
const speed = () => doc.edits().speed;
const scale = () => (side === "result" ? speed() : 1);

function audio() {
  context ??= new AudioContext({ latencyHint: "interactive" });
  if (context.state === "suspended") context.resume().catch(() => undefined);
  return context;
}

// Seconds of the recording that are heard now.
export function now() {
  if (!source) return position;
  return Math.min(session.info?.seconds ?? 0, startedFrom + (context.currentTime - startedAt) * scale());
}

function fillBuffer(buffer, first, pcm) {
  const channels = session.info.channels;
  const start = first * session.info.hop_length;
  const count = Math.min(pcm.length / channels, buffer.length - start);
  for (let channel = 0; channel < channels; channel += 1) {
    const data = buffer.getChannelData(channel);
    for (let i = 0; i < count; i += 1) data[start + i] = pcm[i * channels + channel] / 32767;
  }
}

const newBuffer = (frames) =>
  new AudioBuffer({
    numberOfChannels: session.info.channels, length: frames * session.info.hop_length, sampleRate: session.info.sample_rate,
  });

export function samples(which) {
  return buffers[which]?.getChannelData(0) ?? new Float32Array(0);
}

function begin(from) {
  const buffer = buffers[side];
  if (!buffer) return;
  const at = audio();
  const node = new AudioBufferSourceNode(at, { buffer });
  const gain = new GainNode(at, { gain: 0 });
  node.connect(gain).connect(at.destination);
  const level = side === "result" ? resultGain : 1;
  gain.gain.setValueAtTime(0, at.currentTime);
  gain.gain.linearRampToValueAtTime(level, at.currentTime + FADE_S);
  node.start(0, Math.max(0, from / scale()));
  node.onended = () => {
    if (source?.node === node) finish();
  };
  source = { node, gain };
  startedAt = at.currentTime;
  startedFrom = from;
}

function end() {
  if (!source) return;
  const { node, gain } = source;
  source = null;
  gain.gain.cancelScheduledValues(context.currentTime);
  gain.gain.setValueAtTime(gain.gain.value, context.currentTime);
  gain.gain.linearRampToValueAtTime(0, context.currentTime + FADE_S);
  node.stop(context.currentTime + FADE_S + 0.005);
}

function finish() {
  position = stopAt ?? 0;
  source = null;
  stopAt = null;
  shown();
}

export function play(from = now(), until = null) {
  end();
  const seconds = session.info?.seconds ?? 0;
  position = from >= seconds - 0.02 ? 0 : Math.max(0, from);
  stopAt = until;
  try {
    begin(position);
  } catch (error) {
    emit("failure", new Error(t("errorAudio", { why: error.message })));
  }
  shown();
  requestAnimationFrame(tick);
}

export function pause() {
  position = now();
  end();
  stopAt = null;
  shown();
}

export const toggle = () => (source ? pause() : play());

export function seek(seconds) {
  const to = Math.max(0, Math.min(session.info?.seconds ?? 0, seconds));
  if (source) play(to);
  else {
    position = to;
    shown();
  }
}

export function setSide(next) {
  const at = now();
  const playing = source !== null;
  side = next;
  for (const each of ["original", "result"]) $(`side-${each}`).setAttribute("aria-checked", String(each === side));
  if (playing) play(at, stopAt);
}

function tick() {
  if (!source) return;
  if (stopAt !== null && now() >= stopAt) {
    pause();
    return;
  }
  emit("time", now());
  requestAnimationFrame(tick);
}

function shown() {
  label($("play"), source ? "pause" : "play");
  $("play").querySelector("use").setAttribute("href", `static/icons.svg#${source ? "pause" : "play"}`);
  emit("time", now());
}

// Take over changed sound while it plays; several pieces in a row are taken over together.
function renew() {
  if (!source || side !== "result" || renewing) return;
  renewing = setTimeout(() => {
    renewing = null;
    if (source && side === "result") {
      const [from, until] = [now(), stopAt];
      end();
      begin(from);
      stopAt = until;
    }
  }, 40);
}

export function setUpPlayer() {
  on("recording", ({ pcm, info }) => {
    pause();
    buffers.original = newBuffer(info.frames);
    fillBuffer(buffers.original, 0, pcm);
    resultGain = 1;
  });
  on("length", (told) => {
    if (session.info) buffers.result = newBuffer(told.result_frames);
  });
  on("piece", ({ first, pcm }) => {
    if (!buffers.result || buffers.result.length !== session.resultFrames * session.info.hop_length) {
      buffers.result = newBuffer(session.resultFrames);
    }
    fillBuffer(buffers.result, first, pcm);
    renew();
  });
  on("sung", ({ gain }) => {
    resultGain = gain;
    if (source && side === "result") source.gain.gain.linearRampToValueAtTime(gain, context.currentTime + 0.2);
  });
  $("play").addEventListener("click", toggle);
  $("side-original").addEventListener("click", () => setSide("original"));
  $("side-result").addEventListener("click", () => setSide("result"));
}
