// Two models side by side.
import * as api from "./api.js";
import { $, emit } from "./events.js";
import { t } from "./i18n.js";
import { save } from "./export.js";
import { session } from "./session.js";

let urls = [];

function forget() {
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  for (const side of ["a", "b"]) $(`compare-audio-${side}`).removeAttribute("src");
  $("compare-players").hidden = true;
  $("compare-download").hidden = true;
}

async function start() {
  forget();
  $("compare-start").disabled = true;
  $("compare-bar").hidden = false;
  try {
    let told = await api.compare(session.id, [$("compare-a").value, $("compare-b").value]);
    while (told.busy) {
      $("compare-bar").value = told.progress;
      await new Promise((done) => setTimeout(done, 300));
      told = await api.compared(session.id);
    }
    for (const side of ["a", "b"]) {
      const { blob } = await api.download(session.id, `/compare/${side}`);
      urls.push(URL.createObjectURL(blob));
      $(`compare-audio-${side}`).src = urls.at(-1);
    }
    $("compare-players").hidden = false;
    $("compare-download").hidden = false;
    emit("say", t("compareDone"));
  } catch (error) {
    $("compare-dialog").close();
    emit("failure", error);
  } finally {
    $("compare-start").disabled = false;
    $("compare-bar").hidden = true;
  }
}

export function setUpCompare() {
  $("compare-open").addEventListener("click", () => {
    $("compare-a").value = session.model;
    $("compare-dialog").showModal();
  });
  $("compare-start").addEventListener("click", start);
  $("compare-download").addEventListener("click", () => save("/compare/zip"));
  $("compare-dialog").addEventListener("close", forget);
}
