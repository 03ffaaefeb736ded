// The sounds of the shelf as cards. A picture opens and plays its sound.
import * as player from "./player.js";

const list = document.getElementById("cards"), template = document.getElementById("card");
const cards = new Map();
let act = () => {}, editing = null;

export const onAct = handler => { act = handler; };
const card = sound => {
  if (!cards.has(sound.key)) {
    const made = template.content.firstElementChild.cloneNode(true);
    made.dataset.key = sound.key;
    const picture = made.querySelector(".picture");
    picture.dataset.screen = sound.key;
    picture.querySelector("img").src = `sounds/${sound.key}.png`;
    made.querySelector("a").href = `sounds/${sound.key}.wav?save`;
    cards.set(sound.key, made);
  }
  return cards.get(sound.key);
};
export const show = (sounds, openKey) => {
  const kept = new Set(sounds.map(sound => sound.key));
  for (const key of cards.keys()) if (!kept.has(key)) cards.delete(key);
  for (const sound of sounds) {
    const one = card(sound), name = one.querySelector(".words b");
    if (editing !== sound.key) name.textContent = sound.name;
    one.querySelector(".words small").textContent = `${sound.seconds.toFixed(2)} s · ${sound.note}`;
    one.querySelector(".picture").ariaLabel = `Open and play ${sound.name}`;
    one.ariaCurrent = sound.key === openKey;
    const label = (kind, text) => { one.querySelector(`[data-do=${kind}]`).ariaLabel = text; };
    label("keep", `Keep ${sound.name}`);
    label("rename", `Rename ${sound.name}`);
    label("save", `Save ${sound.name} as a WAV`);
    label("discard", `Discard ${sound.name}`);
    one.querySelector("[data-do=keep]").ariaPressed = sound.kept;
    const star = one.querySelector("[data-do=keep]");
    star.title = sound.kept ? "kept" : "keep";
    star.textContent = sound.kept ? "★" : "☆";
  }
  const wanted = sounds.map(card), focused = document.activeElement;
  // Cards that stay are not moved: a name that is typed in one would lose the focus, and end half typed.
  for (const one of [...list.children]) if (!wanted.includes(one)) one.remove();
  wanted.forEach((one, i) => { if (list.children[i] !== one) list.insertBefore(one, list.children[i] ?? null); });
  if (list.contains(focused) && document.activeElement !== focused) focused.focus({preventScroll: true});
};
const rename = one => {
  const name = one.querySelector(".words b"), before = name.textContent, input = document.createElement("input");
  editing = one.dataset.key;
  Object.assign(input, {value: before, maxLength: 60, ariaLabel: "New name"});
  name.replaceChildren(input);
  input.focus();
  input.select();
  const end = save => {
    if (!editing) return;
    const key = editing, value = input.value.trim();
    editing = null;
    name.textContent = before;
    if (save && value && value !== before) act("rename", {key, name: value});
    one.querySelector("[data-do=rename]").focus({preventScroll: true});
  };
  input.addEventListener("keydown", event => {
    event.stopPropagation();
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();  // or the key would press the button that gets the focus
    end(event.key === "Enter");
  });
  input.addEventListener("blur", () => end(true));
};
list.addEventListener("click", event => {
  const one = event.target.closest(".card"), button = event.target.closest("button");
  if (!one || !button) return;
  const key = one.dataset.key;
  if (button.matches(".picture")) {
    if (one.ariaCurrent !== "true") act("take", {key});
    player.toggle(key);
  }
  const kind = button.dataset.do;
  if (kind === "keep") act("keep", {key, kept: button.ariaPressed !== "true"});
  if (kind === "rename") rename(one);
  if (kind === "discard") act("discard", {key});
});
export const playAll = () => {
  const keys = [...list.children].map(one => one.dataset.key);
  const next = () => { if (keys.length) player.play(keys.shift(), {once: true, then: next}); };
  if (player.playing()) player.stop();
  else next();
};
