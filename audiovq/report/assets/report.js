const sounds = [...document.querySelectorAll("audio")];
let last = null, queue = [];
// A sound that is stopped before it could begin rejects its promise; that is no error.
const play = sound => sound?.play().catch(error => { if (error.name !== "AbortError") throw error; });
const stopOthers = sound => sounds.forEach(other => other === sound || other.pause());
for (const sound of sounds) {
  const card = sound.parentElement, button = card.querySelector(".screen"), save = card.querySelector(".save");
  sound.controls = false;
  save.hidden = false;
  save.onclick = () => { save.href = sound.src; };
  save.tabIndex = 0;
  save.href = "#";
  button.onclick = event => {
    queue = [];
    if (!sound.paused) return sound.pause();
    const box = button.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    sound.currentTime = event.detail && sound.duration > 2 && at < 1 ? at * sound.duration : 0;
    play(sound);
  };
  const follow = () => {
    button.classList.toggle("playing", !sound.paused);
    button.style.setProperty("--at", 100 * sound.currentTime / sound.duration + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  sound.onplay = () => { if (sound.paused) return; last = sound; stopOthers(sound); follow(); };
  sound.onpause = follow;
  sound.onended = () => play(queue.shift());
}
for (const button of document.querySelectorAll(".all")) {
  button.hidden = false;
  button.onclick = () => {
    const playing = queue.length && sounds.some(sound => !sound.paused);
    stopOthers(null);
    queue = playing ? [] : [...button.closest("section, body").querySelectorAll("audio")];
    for (const sound of queue) sound.currentTime = 0;
    play(queue.shift());
  };
}
// The key X: from one version of a sound to the next, at the same moment.
addEventListener("keydown", event => {
  if (event.key.toLowerCase() !== "x" || event.ctrlKey || event.metaKey || event.altKey) return;
  const versions = [...(last?.closest(".row")?.querySelectorAll("audio") ?? [])];
  if (!versions.length) return;
  const next = versions[(versions.indexOf(last) + 1) % versions.length];
  next.currentTime = last.ended ? 0 : Math.min(last.currentTime, next.duration);
  queue = [];
  last.pause();
  last = next;  // at once: the event of playing comes later than another press may
  play(next);
});
