"use strict";
(() => {
  const FADE = 0.012; // seconds; shorter clicks
  const sections = [...document.querySelectorAll("section.clip")].map((root) => ({
    root,
    figures: [...root.querySelectorAll("figure")],
    written: [...root.querySelectorAll("figure")],
    buffers: null,
    current: 0,
  }));
  if (!sections.length) return;
  const box = (id) => document.getElementById(id);
  const now = box("now");
  let context = null;
  let playing = null; // { section, sources, gains, began, offset }
  let place = { section: sections[0], seconds: 0 };
  let request = 0;

  const decode = (uri) => {
    const text = atob(uri.slice(uri.indexOf(",") + 1));
    const bytes = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
    return context.decodeAudioData(bytes.buffer);
  };
  const label = (section, index) =>
    document.body.classList.contains("blind") ? String.fromCharCode(65 + index) : section.figures[index].dataset.name;
  const duration = (section) => Math.min(...section.figures.map((figure) => section.buffers.get(figure).duration));
  const level = (figure) => (box("loud").checked ? Number(figure.dataset.gain) : 1);

  const seconds = () => {
    if (!playing) return place.seconds;
    const at = playing.offset + context.currentTime - playing.began;
    return box("loop").checked ? at % duration(playing.section) : Math.min(at, duration(playing.section));
  };

  const mark = () => {
    for (const section of sections) {
      section.root.classList.toggle("active", section === place.section);
      section.figures.forEach((figure, index) => {
        const on = section === place.section && index === section.current;
        figure.classList.toggle("on", on);
        const button = figure.querySelector("button");
        button.setAttribute("aria-pressed", String(on));
        button.textContent = label(section, index);
      });
    }
  };

  const stop = () => {
    if (!playing) return;
    place = { section: playing.section, seconds: seconds() };
    playing.sources.forEach((source) => { source.onended = null; source.stop(); });
    playing = null;
    document.body.dataset.state = "stopped";
    now.textContent = "stopped";
  };

  const load = async (section) => {
    context ??= new AudioContext();
    if (context.state === "suspended") await context.resume();
    if (section.buffers) return;
    now.textContent = "reading";
    const found = await Promise.all(section.figures.map((figure) => decode(figure.dataset.audio)));
    section.buffers = new Map(section.figures.map((figure, index) => [figure, found[index]]));
  };

  const play = async (section, offset) => {
    stop();
    place = { section, seconds: offset };
    mark();
    const mine = ++request;
    await load(section);
    if (mine !== request) return; // something else was asked for meanwhile
    const end = duration(section);
    const from = offset >= end - 0.02 ? 0 : offset;
    const began = context.currentTime + 0.02;
    const gains = section.figures.map((figure, index) => {
      const gain = context.createGain();
      gain.gain.value = index === section.current ? level(figure) : 0;
      gain.connect(context.destination);
      return gain;
    });
    const sources = section.figures.map((figure, index) => {
      const source = context.createBufferSource();
      source.buffer = section.buffers.get(figure);
      source.loop = box("loop").checked;
      source.loopEnd = end;
      source.connect(gains[index]);
      source.start(began, from);
      return source;
    });
    playing = { section, sources, gains, began, offset: from };
    sources[0].onended = () => { if (playing && playing.sources === sources) { stop(); place.seconds = 0; } };
    document.body.dataset.state = "playing";
    draw();
  };

  const choose = (section, index) => {
    if (index < 0 || index >= section.figures.length) return;
    section.current = index;
    if (!playing || playing.section !== section) {
      play(section, place.section === section ? place.seconds : 0);
      return;
    }
    playing.gains.forEach((gain, which) => {
      const target = which === index ? level(section.figures[which]) : 0;
      gain.gain.setTargetAtTime(target, context.currentTime, FADE / 3);
    });
    mark();
  };

  const draw = () => {
    if (!playing) return;
    const { section } = playing;
    const share = seconds() / duration(section);
    for (const line of section.root.querySelectorAll(".picture i")) line.style.left = `${100 * share}%`;
    now.textContent = `${label(section, section.current)}: ${seconds().toFixed(1)} of ${duration(section).toFixed(1)} s`;
    requestAnimationFrame(draw);
  };

  const shuffle = (list) => {
    for (let last = list.length - 1; last > 0; last--) {
      const other = Math.floor(Math.random() * (last + 1));
      [list[last], list[other]] = [list[other], list[last]];
    }
    return list;
  };

  sections.forEach((section) => {
    section.root.addEventListener("click", (event) => {
      const figure = event.target.closest("figure");
      if (!figure) return;
      const index = section.figures.indexOf(figure);
      const picture = event.target.closest(".picture");
      if (!picture) { choose(section, index); return; }
      const area = picture.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - area.left) / area.width));
      section.current = index;
      load(section).then(() => play(section, share * duration(section)));
    });
  });

  box("blind").addEventListener("change", () => {
    stop();
    const hidden = box("blind").checked;
    document.body.classList.toggle("blind", hidden);
    for (const section of sections) {
      section.figures = hidden ? shuffle([...section.written]) : [...section.written];
      section.figures.forEach((figure) => section.root.append(figure));
      section.current = 0;
    }
    mark();
  });
  box("loud").addEventListener("change", () => { if (playing) choose(playing.section, playing.section.current); });
  box("loop").addEventListener("change", () => { if (playing) play(playing.section, seconds()); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
    const section = place.section;
    if (event.key === " ") { if (playing) stop(); else play(section, place.seconds); }
    else if (event.key >= "1" && event.key <= "9") choose(section, Number(event.key) - 1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      play(section, Math.max(0, seconds() + (event.key === "ArrowLeft" ? -1 : 1)));
    } else return;
    event.preventDefault();
  });
  mark();
})();
