// The open session: what the server told of it, and the way there. Edits go up one at a time, the newest last; what the
// server has sung comes down piece by piece.
import * as api from "./api.js";
import * as doc from "./doc.js";
import { emit } from "./events.js";

export const session = {
  id: null, name: "", model: "", info: null, notes: [], recorded: new Float32Array(0), sung: new Float32Array(0),
  picture: null, everything: false, generation: 0, seen: 0, busy: false,
};
const NEWS_WAIT_S = 8;
let sending = false;
let waiting = null;
let round = 0;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export const modelSeconds = (seconds) => seconds / doc.edits().speed;

// Upload a file and wait until it is analysed; progress(stage, share).
export async function openFile(file, name, progress, signal) {
  progress("upload", 0);
  let told = await api.open(file, name, session.model, signal);
  const old = session.id;
  while (told.frames === undefined && !told.error) {
    if (signal.aborted) {
      await api.close(told.id).catch(() => undefined);
      throw new DOMException("cancelled", "AbortError");
    }
    progress("pitch", told.loading);
    await pause(120);
    told = await api.state(told.id);
  }
  if (told.error) {
    await api.close(told.id).catch(() => undefined);
    throw new api.Failure(422, told.error);
  }
  if (old) api.close(old).catch(() => undefined);
  await take(told);
  doc.reset(told.edits);
  emit("opened");
  listen();
}

async function take(told) {
  session.id = told.id;
  session.info = told;
  session.name = told.name;
  session.model = told.model;
  session.everything = told.everything;
  update(told);
  const [curve, picture, pcm] = await Promise.all([
    api.curve(told.id), api.picture(told.id), api.audio(told.id, "original", 0, told.frames),
  ]);
  session.picture = picture;
  takeCurve(curve);
  emit("recording", { pcm, info: told });
  await takeWhole();
}

function update(told) {
  if (told.notes) session.notes = told.notes;
  session.busy = told.busy;
  session.progress = told.progress;
  session.resultFrames = told.result_frames;
  if (told.generation !== session.generation) {
    session.generation = told.generation;
    session.seen = 0;
    emit("length", told);
  }
}

function takeCurve(curve) {
  session.recorded = curve.subarray(0, curve.length / 2);
  session.sung = curve.subarray(curve.length / 2);
}

// All of the result as it is now; pieces that come later replace parts of it.
async function takeWhole() {
  const generation = session.generation;
  const { seen } = await api.news(session.id, generation, 0, 0);
  const pcm = await api.audio(session.id, "result", 0, session.resultFrames);
  if (generation !== session.generation) return;
  session.seen = seen;
  emit("piece", { first: 0, pcm, whole: true });
}

// Send the newest edits; what is edited meanwhile goes with the next request.
export async function send(focus = {}) {
  waiting = focus;
  if (sending || !session.id) return;
  sending = true;
  const began = performance.now();
  try {
    while (waiting) {
      const { start_s: start = 0 } = waiting;
      waiting = null;
      const id = session.id;
      const told = await api.edit(id, doc.edits(), modelSeconds(Math.max(0, start - 0.1)), session.everything);
      if (id !== session.id) return;
      const generation = session.generation;
      // While a newer edit waits, the notes of this one are behind what is shown already.
      update(waiting ? { ...told, notes: session.notes } : told);
      emit("planned", { spans: told.spans, began, start });
      if (generation !== session.generation) await takeWhole();
      emit("notes");
      listen();
      takeCurve(await api.curve(id));
      emit("redraw");
    }
  } catch (error) {
    emit("failure", error);
  } finally {
    sending = false;
  }
}

export async function chooseModel(model) {
  const told = await api.chooseModel(session.id, model);
  await take(told);
  emit("notes");
  emit("redraw");
  listen();
}

// Follow what the server sings until nothing is left.
export async function listen() {
  round += 1;
  const mine = round;
  const id = session.id;
  try {
    for (;;) {
      const told = await api.news(id, session.generation, session.seen, session.busy ? NEWS_WAIT_S : 0);
      if (mine !== round || id !== session.id) return;
      if (told.generation !== session.generation) {
        update(told);
        await takeWhole();
        continue;
      }
      for (const [first, last] of joined(told.spans)) {
        const pcm = await api.audio(id, "result", first, last);
        if (id !== session.id || told.generation !== session.generation) return;
        emit("piece", { first, pcm, whole: false });
      }
      session.seen = told.seen;
      session.busy = told.busy;
      session.progress = told.progress;
      emit("progress");
      if (!told.busy && mine === round) {
        emit("sung", await api.gain(id));
        return;
      }
    }
  } catch (error) {
    if (mine === round) emit("failure", error);
  }
}

// Neighbours among spans as one.
function joined(spans) {
  const result = [];
  for (const [first, last] of spans) {
    const before = result.at(-1);
    if (before && before[1] === first) before[1] = last;
    else result.push([first, last]);
  }
  return result;
}
