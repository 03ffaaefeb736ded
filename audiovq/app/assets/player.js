// Plays one sound at a time, by Web Audio, so that loops have no gap. Every element with the attribute `data-play` or
// `data-screen` shows whether its sound, named by its value, is playing, and where.
import {request} from "./server.js";

const buffers = new Map();
let context, volume, source, key = "", started = 0, onEnd = null;
const loop = document.getElementById("loop"), slider = document.getElementById("volume");

export const urlOf = sound => `sounds/${sound}.wav`;
export const playing = () => key;
let failed = () => {};
// `handler` gets the message where a sound cannot be played.
export const onError = handler => { failed = handler; };

const prepare = () => {
  if (context) return;
  context = new AudioContext();
  volume = new GainNode(context, {gain: slider.value ** 2});
  volume.connect(context.destination);
};
const load = async url => {
  if (!buffers.has(url)) {
    if (buffers.size > 64) buffers.delete(buffers.keys().next().value);
    const answer = await request(url);
    buffers.set(url, await context.decodeAudioData(await answer.arrayBuffer()));
  }
  return buffers.get(url);
};
export const stop = () => {
  const old = source;
  source = null;
  key = "";
  onEnd = null;
  old?.stop();
  show();
};
export const play = async (sound, {url = urlOf(sound), once = false, then = null} = {}) => {
  prepare();
  stop();
  key = sound;
  let buffer;
  try {
    buffer = await load(url);
  } catch (error) {
    if (key !== sound) return;
    stop();
    failed(error.message);
    return then?.();
  }
  if (key !== sound) return;
  await context.resume();
  const mine = source = new AudioBufferSourceNode(context, {buffer, loop: loop.checked && !once});
  onEnd = then;
  mine.connect(volume);
  mine.onended = () => {
    if (source !== mine) return;
    const next = onEnd;
    stop();
    next?.();
  };
  started = context.currentTime;
  mine.start();
  show();
  requestAnimationFrame(follow);
};
export const toggle = sound => sound && (key === sound ? stop() : play(sound));
const follow = () => {
  if (!source) return;
  const at = (context.currentTime - started) % source.buffer.duration;
  for (const screen of document.querySelectorAll(`[data-screen="${CSS.escape(key)}"]`)) {
    const seconds = Number(screen.dataset.seconds) || source.buffer.duration;
    screen.style.setProperty("--at", 100 * at / seconds + "%");
  }
  requestAnimationFrame(follow);
};
export const show = () => {
  document.body.dataset.playing = source ? key : "";
  for (const button of document.querySelectorAll("[data-play]"))
    button.ariaPressed = Boolean(source) && button.dataset.play === key;
  for (const screen of document.querySelectorAll("[data-screen]"))
    screen.classList.toggle("playing", Boolean(source) && screen.dataset.screen === key);
};
loop.addEventListener("change", () => { if (source) source.loop = loop.checked; });
slider.value = localStorage.getItem("volume") ?? slider.value;
slider.addEventListener("input", () => {
  localStorage.setItem("volume", slider.value);
  if (volume) volume.gain.value = slider.value ** 2;
});
document.addEventListener("click", event => {
  const button = event.target.closest("[data-play]");
  if (button) toggle(button.dataset.play);
});
