// The page begins here: every part is set up, and the stages (empty, loading, editing) follow each other.
import { Failure, leave } from "./api.js";
import * as doc from "./doc.js";
import { setUpCompare } from "./compare.js";
import { $, emit, on } from "./events.js";
import { setUpExport } from "./export.js";
import { setUpLanguage, t } from "./i18n.js";
import { setUpKeys } from "./keys.js";
import { setUpNotes } from "./notes.js";
import { loadChoices, setUpPanel } from "./panel.js";
import { setUpPencil } from "./pencil.js";
import * as player from "./player.js";
import { record } from "./recorder.js";
import { setUpRoll } from "./roll.js";
import { openFile, send, session } from "./session.js";
import { setUpTheme } from "./theme.js";
import { applySize, fitPitches, reveal, setUpView, view, xOf, yOf } from "./view.js";
import { setUpWave } from "./wave.js";

let loading = null;
let heard = null; // an edit that waits for its first sound

function stage(name) {
  document.body.dataset.stage = name;
}

function showFailure(error) {
  if (error?.name === "AbortError") return;
  $("alert-text").textContent = error?.message ?? String(error);
  $("alert").hidden = false;
  if (error instanceof Failure && error.status === 404 && document.body.dataset.stage === "editing") {
    session.id = null;
    stage("empty");
  }
}

function say(text) {
  $("live").textContent = "";
  requestAnimationFrame(() => { $("live").textContent = text; });
}

async function open(file, name = file.name) {
  loading?.abort();
  loading = new AbortController();
  const before = document.body.dataset.stage === "editing" ? "editing" : "empty";
  player.pause();
  $("alert").hidden = true;
  stage("loading");
  try {
    await openFile(file, name, showLoading, loading.signal);
  } catch (error) {
    stage(before);
    showFailure(error);
  }
}

function showLoading(step, share) {
  $("loading-bar").value = share;
  $("loading-text").textContent = step === "upload" ? t("loadingUpload") : t("loadingPitch", { percent: Math.round(share * 100) });
}

function opened() {
  stage("editing");
  $("clip-name").textContent = session.name;
  $("clip-name").title = session.name;
  document.body.dataset.session = session.id;
  document.title = `${session.name} – melisma studio`;
  view.seconds = session.info.seconds;
  fitPitches(session.notes, session.recorded);
  const wide = $("scroller").clientWidth;
  view.perSecond = Math.max(60, Math.min(160, (wide - 8) / view.seconds));
  applySize();
  const first = session.notes[0];
  $("scroller").scrollTop = yOf(first ? median(session.notes.map((note) => note.sung_pitch)) : 60) - $("scroller").clientHeight / 2;
  $("scroller").scrollLeft = 0;
  showTime(0);
  say(t("opened", { name: session.name, count: session.notes.length }));
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function showTime(seconds) {
  $("now").textContent = clock(seconds);
  $("length").textContent = clock(session.info?.seconds ?? 0);
  $("playhead").style.transform = `translateX(${xOf(seconds)}px)`;
  if (player.isPlaying()) reveal(seconds);
}

function showProgress() {
  $("singing").hidden = !session.busy;
  $("singing-bar").value = session.progress ?? 0;
}

// The first sound of an edit: its first piece is here, and is played with a little of what comes before.
function firstSound({ whole }) {
  if (!heard || whole) return;
  document.body.dataset.firstSoundMs = String(Math.round(performance.now() - heard.began));
  const { start_s: start, stop_s: stop } = heard.focus;
  heard = null;
  if ($("audition").checked && !player.isPlaying() && stop !== undefined) {
    if (player.currentSide() !== "result") player.setSide("result");
    player.play(Math.max(0, start - 0.15), stop + 0.25);
  }
}

function setUpFiles() {
  const choose = () => $("file").click();
  $("choose").addEventListener("click", choose);
  $("open").addEventListener("click", choose);
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) open(file);
    $("file").value = "";
  });
  $("record").addEventListener("click", async () => {
    const wav = await record();
    if (wav) open(wav, `${t("record")}.wav`);
  });
  $("loading-cancel").addEventListener("click", () => loading?.abort());
  const over = (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
    $("drop").classList.add("over");
  };
  const out = () => {
    document.body.classList.remove("dropping");
    $("drop").classList.remove("over");
  };
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", (event) => !event.relatedTarget && out());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    out();
    const [file] = event.dataTransfer?.files ?? [];
    if (file) open(file);
  });
}

function listenForNews() {
  let pending = null;
  on("opened", opened);
  on("edited", (focus) => {
    pending = focus.start_s === undefined ? { start_s: player.now() } : focus;
    send(pending);
  });
  on("planned", ({ spans, began }) => {
    heard = spans.length && pending ? { began, focus: pending } : null;
    showProgress();
  });
  on("piece", firstSound);
  on("progress", showProgress);
  on("sung", () => {
    showProgress();
    emit("redraw");
  });
  on("time", showTime);
  on("sized", () => showTime(player.now()));
  on("failure", showFailure);
  on("say", say);
  on("listenTo", ({ start_s: start, stop_s: stop }) => Number.isFinite(start) && player.play(start, stop));
  $("alert-close").addEventListener("click", () => { $("alert").hidden = true; });
}

// Leaving: the browser asks where edits would be lost, and the server forgets the session.
function setUpLeaving() {
  window.addEventListener("beforeunload", (event) => {
    if (doc.canUndo()) event.preventDefault();
  });
  window.addEventListener("pagehide", () => session.id && leave(session.id));
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
}

setUpTheme();
setUpLanguage();
setUpView();
setUpRoll();
setUpNotes();
setUpPencil();
player.setUpPlayer();
setUpWave();
setUpPanel();
setUpExport();
setUpCompare();
setUpKeys();
setUpFiles();
setUpLeaving();
listenForNews();
loadChoices().catch(showFailure);
