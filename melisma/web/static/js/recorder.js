// Recording: the microphone through an audio worklet into 16-bit PCM, written as a wav file here in the page.
import { $, emit } from "./events.js";
import { t } from "./i18n.js";
import { colour } from "./theme.js";

const MOST_SECONDS = 600;

export function wavOf(blocks, sampleRate) {
  const count = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

function drawLevel(history) {
  const canvas = $("record-level");
  canvas.width = canvas.clientWidth;
  canvas.height = canvas.clientHeight;
  const context = canvas.getContext("2d");
  context.fillStyle = colour("accent");
  history.slice(-Math.floor(canvas.width / 4)).forEach((level, index) => {
    const high = Math.max(2, Math.min(1, level * 1.6) * canvas.height);
    context.fillRect(index * 4, (canvas.height - high) / 2, 3, high);
  });
}

// Ask for the microphone, record until the dialog is closed; gives a wav, or null when cancelled.
export async function record() {
  let stream;
  try {
    if (!navigator.mediaDevices) throw new Error("https");
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch (error) {
    emit("failure", new Error(t("errorMicrophone", { why: error.message || error.name })));
    return null;
  }
  const context = new AudioContext();
  const blocks = [];
  const history = [];
  let count = 0;
  const dialog = $("record-dialog");
  try {
    await context.audioWorklet.addModule("static/js/recorder-worklet.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
      count += data.length;
      history.push(data.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0));
      const seconds = count / context.sampleRate;
      $("record-time").textContent = `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
      drawLevel(history);
      if (seconds > MOST_SECONDS) dialog.close("stop");
    };
    context.createMediaStreamSource(stream).connect(node);
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  }
  return dialog.returnValue === "stop" && count ? wavOf(blocks, context.sampleRate) : null;
}
