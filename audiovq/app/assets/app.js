// Starts here: asks the server for moves, one at a time, and shows the desk that it answers.
import * as codes from "./codes.js";
import * as microphone from "./microphone.js";
import * as player from "./player.js";
import {request} from "./server.js";
import * as shelf from "./shelf.js";
import * as stage from "./stage.js";

const find = id => document.getElementById(id);
const message = find("message"), make = find("make"), change = find("change");
const MESSAGE_SECONDS = 10;
let desk = null, queue = Promise.resolve(), closing = 0, errors = 0;

const say = (text, isError = false) => {
  clearTimeout(closing);
  if (isError) errors++;
  message.hidden = !text;
  message.role = isError ? "alert" : "status";
  message.className = isError ? "error" : "";
  message.querySelector("p").textContent = text;
  if (text) closing = setTimeout(() => say(""), 1000 * MESSAGE_SECONDS);
};
message.querySelector("button").addEventListener("click", () => say(""));

// Work of the model, with a bar: of `total` parts where there are several.
const busy = (done = 0, total = 0) => {
  const bar = find("busy");
  bar.hidden = false;
  document.body.ariaBusy = "true";
  if (total > 1) Object.assign(bar, {max: total, value: done});
  else bar.removeAttribute("value");
};
const idle = () => {
  find("busy").hidden = true;
  document.body.ariaBusy = "false";
};
const ask = async (url, options) => (await request(url, options)).json();
// Queue work; several parts are shown one by one, each after what was asked for meanwhile. An error ends them, and is shown
// until work succeeds that was asked for after it: `seen` counts the errors before.
const work = (parts, isHeard, i = 0, seen = errors) => {
  queue = queue.then(async () => {
    try {
      busy(i, parts.length);
      show(await parts[i]());
      if (seen === errors && message.className === "error") say("");
      if (isHeard && i === 0) player.play(desk.editor.key);
      if (i + 1 < parts.length) work(parts, isHeard, i + 1, seen);
    } catch (error) {
      say(error.message, true);
    } finally {
      idle();
    }
  });
};
player.onError(text => say(text, true));
const post = body => () => ask("move", {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
});
const HEARD = new Set(["make", "redraw", "write", "vary", "extend", "morph"]);
const OF_SHOWN = new Set(["redraw", "write", "vary", "extend", "morph"]);  // though others arrive while they wait
const move = (name, values = {}) => {
  const from = OF_SHOWN.has(name) ? {from: stage.open()?.key} : {};
  work([post({move: name, ...from, ...values})], HEARD.has(name));
};

const numberOf = input => input?.value === "" || !input ? null : Number(input.value);
const settings = () => ({
  temperature: numberOf(make?.elements.temperature) ?? undefined,
  guidance: numberOf(make?.elements.guidance) ?? undefined,
  seed: numberOf(make?.elements.seed),
});
const labelsOf = form => Object.fromEntries(
  [...form.querySelectorAll("[data-label]")].filter(menu => menu.value).map(menu => [menu.dataset.label, menu.value]));
const redraw = () => {
  const cells = stage.marked();
  if (cells.length) move("redraw", {cells, ...settings()});
};
const write = code => {
  const cells = stage.marked(), [row, column] = stage.headCell();
  const rest = stage.open().codes[row][column].slice(1);
  move("write", {cells, codes: [code, ...rest]});
};

const show = shown => {
  desk = shown;
  const {editor, sounds} = desk;
  document.querySelector(".stage").hidden = !editor;
  shelf.show(sounds, editor?.key);
  find("count").textContent = sounds.length === 1 ? "1 sound" : `${sounds.length} sounds`;
  find("pack").hidden = find("play-all").hidden = !sounds.length;
  const stars = sounds.filter(sound => sound.kept).length;
  find("pack").textContent = stars ? `Download ${stars} starred as a pack` : "Download all as a pack";
  for (const kind of ["undo", "redo"]) {
    const button = find(kind);
    button.disabled = !desk[kind];
    button.title = desk[kind] ? `${kind} ${desk[kind]}` : `nothing to ${kind}`;
  }
  if (change) for (const part of change.querySelectorAll("button")) part.disabled = !editor;
  if (editor) showEditor(editor, sounds);
  else player.stop();  // what stops it is hidden
  player.show();
};
const showEditor = (editor, sounds) => {
  find("name").textContent = editor.name;
  find("facts").textContent = `${editor.seconds.toFixed(2)} s · ${editor.note}`;
  stage.show(editor);
  find("play").dataset.play = editor.key;
  const kept = sounds.find(sound => sound.key === editor.key)?.kept ?? false;
  find("keep").ariaPressed = kept;
  find("keep").textContent = kept ? "★ Kept" : "☆ Keep";
  find("keep").title = "a star: it stays when the shelf is full, and the pack holds the starred sounds";
  find("save").href = `sounds/${editor.key}.wav?save`;
  const original = editor.original, figure = find("original");
  figure.hidden = find("play-original").hidden = !original;
  find("play-original").dataset.play = original?.key ?? "";
  if (original) {
    figure.querySelector("b").textContent = original.name;
    const field = figure.querySelector(".field");
    field.dataset.screen = original.key;
    field.dataset.seconds = editor.shown_seconds;
    const picture = field.querySelector("img");
    picture.src = `sounds/${original.key}.png?columns=${editor.columns}`;
    picture.alt = `Spectrogram of the original, ${original.name}`;
  }
  if (!change) return;
  const others = sounds.filter(sound => sound.key !== editor.key), target = change.elements.target;
  const chosen = target.value;
  target.replaceChildren(...others.map(sound => new Option(sound.name, sound.key)));
  if (others.some(sound => sound.key === chosen)) target.value = chosen;
  change.querySelector("[value=morph]").disabled = !others.length;
  change.querySelector("[value=morph]").title = others.length ? "" : "takes two sounds on the shelf";
  const length = change.elements.length_;
  if (length && !length.dataset.typed)  // half a second longer than the open sound
    length.value = Math.min(Number(length.max), editor.seconds + 0.5).toFixed(1);
};

stage.listen({
  changed: () => {
    const count = stage.marked().length;
    find("marked").textContent = count === 1 ? "1 cell is marked." : count ? `${count} cells are marked.` : "No cells are marked.";
    if (find("redraw")) {
      find("redraw").disabled = !count;
      find("redraw").title = count ? "" : "drag over the picture first";
    }
    codes.show();
  },
  drawn: asked => { if (find("redraw") && (asked || find("at-once").checked)) redraw(); },
});
codes.onWrite(write);
shelf.onAct(move);
find("redraw")?.addEventListener("click", redraw);
find("undo").addEventListener("click", () => move("undo"));
find("redo").addEventListener("click", () => move("redo"));
find("keep").addEventListener("click", () => {
  const {key, kept} = desk.sounds.find(sound => sound.key === desk.editor.key);
  move("keep", {key, kept: !kept});
});
find("play-all").addEventListener("click", shelf.playAll);
make?.addEventListener("submit", event => {
  event.preventDefault();
  const {seed, ...rest} = settings();
  const values = {move: "make", labels: labelsOf(make), seconds: numberOf(make.elements.seconds), ...rest};
  const one = i => post({...values, seed: seed === null ? null : seed + i});
  work(Array.from({length: numberOf(make.elements.number) ?? 1}, (_, i) => one(i)), true);
});
change?.elements.length_?.addEventListener("input", ({target}) => target.dataset.typed = target.value);
change?.addEventListener("submit", event => {
  event.preventDefault();
  const {elements} = change, labels = labelsOf(change), kind = event.submitter?.value ?? "vary";
  const values = {
    vary: {strength: numberOf(elements.strength)},
    extend: {seconds: numberOf(elements.length_) ?? 0},
    morph: {key: elements.target.value, steps: numberOf(elements.steps) ?? 4},
  };
  move(kind, {labels, ...settings(), ...values[kind]});
});
for (const slider of document.querySelectorAll("[data-words]")) {
  const [value, word] = ["b", "em"].map(part => slider.closest("label").querySelector(part));
  const tell = () => {
    const found = slider.dataset.words.split("|").map(one => one.split(":"));
    const text = (found.find(([most]) => Number(slider.value) <= Number(most)) ?? found.at(-1))[1];
    value.textContent = slider.value;
    word.textContent = text;
    slider.ariaValueText = `${slider.value}, ${text}`;
  };
  slider.addEventListener("input", tell);
  tell();
}

const upload = (name, body, more = "") => work([async () => {
  const most = Number(document.body.dataset.mostBytes);
  if ((body.size ?? body.byteLength) > most)  // the server would end the connection
    throw new Error(`${name}: is larger than ${most >> 20} MB; cut it to the part that you want`);
  const after = await ask(`recording?name=${encodeURIComponent(name)}`, {method: "POST", body});
  say(`${name}: ${after.editor.note}. Its samples are kept outside of what you redraw.${more}`);
  return after;
}], true);
find("open").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", event => {
  for (const file of event.target.files) upload(file.name, file);
  event.target.value = "";
});
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, event => {
  event.preventDefault();
  if (kind === "drop") for (const file of event.dataTransfer.files) upload(file.name, file);
});
find("microphone").addEventListener("click", async event => {
  const button = event.currentTarget;
  if (microphone.isRecording()) return microphone.end();
  if (button.ariaBusy === "true") return;  // the browser is asking for permission
  button.ariaBusy = "true";
  try {
    const most = Number(document.body.dataset.mostSeconds);
    await microphone.begin(most, (wav, isFull) => {
      button.ariaPressed = "false";
      button.textContent = "Record";
      if (wav) upload("microphone.wav", wav, isFull ? ` Recording stopped by itself at ${most} s, the longest.` : "");
      else say("Nothing was recorded: press Record, make a sound, then press it again.", true);
    });
    button.ariaPressed = "true";
    button.textContent = "Stop recording";
  } catch {
    say("The microphone is not available: allow it in the browser, or open a file instead.", true);
  } finally {
    button.ariaBusy = "false";
  }
});
window.addEventListener("keydown", event => {
  if (event.target.matches("input:not([type=range], [type=checkbox]), select, textarea")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    return find(event.shiftKey ? "redo" : "undo").click();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "p" && desk?.editor) find("play").click();
  if (key === "o" && desk?.editor && !find("play-original").hidden) find("play-original").click();
  if (key === "l") find("loop").click();
  if (key === "escape") say("");
});
work([() => ask("desk")], false);
