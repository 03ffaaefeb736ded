const sounds = [...document.querySelectorAll("audio")];
for (const sound of sounds) {
  const button = sound.parentElement.querySelector("button");
  const picture = button.querySelector(".sound");
  sound.controls = false;
  button.onclick = event => {
    if (!sound.paused) return sound.pause();
    const box = picture.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    sound.currentTime = event.detail && sound.duration > 2 && at < 1 ? at * sound.duration : 0;
    sound.play();
  };
  const follow = () => {
    button.classList.toggle("playing", !sound.paused);
    picture.style.setProperty("--at", 100 * sound.currentTime / sound.duration + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  sound.onplay = () => { sounds.forEach(other => other === sound || other.pause()); follow(); };
  sound.onpause = follow;
}
