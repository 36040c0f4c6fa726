// The waveform of the whole clip above the roll (wavesurfer.js, drawn from what is in memory; it plays nothing itself).
import WaveSurfer from "../vendor/wavesurfer/wavesurfer.esm.js";
import { $, on } from "./events.js";
import { now, samples, seek } from "./player.js";
import { session } from "./session.js";
import { colour } from "./theme.js";

const COLUMNS = 2000;
let wave = null;
let timer = null;

// Loudest sample of each column, as wavesurfer wants them.
function peaks(data) {
  const count = Math.min(COLUMNS, data.length);
  const result = new Float32Array(count);
  for (let column = 0; column < count; column += 1) {
    const stop = Math.floor(((column + 1) * data.length) / count);
    let highest = 0;
    for (let i = Math.floor((column * data.length) / count); i < stop; i += 1) {
      const value = Math.abs(data[i]);
      if (value > highest) highest = value;
    }
    result[column] = highest;
  }
  return result;
}

const colours = () => ({ waveColor: colour("note"), progressColor: colour("accent"), cursorColor: colour("playhead") });

function show() {
  if (!session.info) return;
  const data = samples("result");
  if (!wave) {
    wave = WaveSurfer.create({
      container: $("wave"), height: "auto", cursorWidth: 2, barWidth: 2, barGap: 1, barRadius: 2, normalize: true,
      interact: true, dragToSeek: true, cspNonce: document.querySelector("meta[name=csp-nonce]").content, ...colours(),
    });
    wave.on("interaction", (seconds) => seek((seconds / wave.getDuration()) * session.info.seconds));
  }
  wave.load("", [peaks(data)], session.info.seconds).then(() => wave.setTime(now())).catch(() => undefined);
}

export function setUpWave() {
  on("opened", show);
  on("piece", () => {
    clearTimeout(timer);
    timer = setTimeout(show, 250);
  });
  on("time", (seconds) => wave && session.info && wave.setTime(seconds));
  on("redraw", () => wave?.setOptions(colours()));
}
