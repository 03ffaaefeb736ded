// From `anchor` to `head` is what is chosen, as [row, column]; it outlives every new picture.
let anchor = [0, 0], head = [0, 0], dragged = false, pressed = "";
const at = cell => cell.dataset.cell.split(",").map(Number);
const found = place => element.querySelector(`[data-cell="${place}"]`);
const between = (x, a, b) => Math.min(a, b) <= x && x <= Math.max(a, b);
const choose = (place, wider) => {
  if (!found(place)) return;
  head = place;
  if (!wider || !found(anchor)) anchor = place;
  for (const cell of element.querySelectorAll("[data-cell]")) {
    const [row, column] = at(cell);
    cell.ariaSelected = between(row, anchor[0], head[0]) && between(column, anchor[1], head[1]);
    cell.tabIndex = -1;
  }
  found(head).tabIndex = 0;
  const codes = found(head).dataset.codes.split(" ");
  element.querySelectorAll("input").forEach((input, i) => { input.value = codes[i]; });
};
const chosen = () => [...element.querySelectorAll('[aria-selected="true"]')].map(at);
element.addEventListener("pointerdown", event => {
  const cell = event.target.closest("[data-cell]");
  if (!cell) return;
  dragged = true;
  choose(at(cell), event.shiftKey);
});
element.addEventListener("pointermove", event => {
  const under = dragged && document.elementFromPoint(event.clientX, event.clientY);
  const cell = under && under.closest("[data-cell]");
  if (cell && at(cell).join() !== head.join()) choose(at(cell), true);
});
window.addEventListener("pointerup", () => { dragged = false; });
const steps = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]};
element.addEventListener("keydown", event => {
  const step = steps[event.key];
  if (!step || !event.target.dataset.cell) return;
  event.preventDefault();
  choose([head[0] + step[0], head[1] + step[1]], event.shiftKey);
  found(head).focus();
});
element.addEventListener("click", event => {
  const button = event.target.closest("[data-move]");
  if (!button) return;
  pressed = button.dataset.move;
  const codes = [...element.querySelectorAll("input")].map(input => Number(input.value));
  if (pressed === "repaint") trigger("repaint", {cells: chosen()});
  if (pressed === "write") trigger("write", {cells: chosen(), codes});
  if (pressed === "undo") trigger("undo", {});
});
watch("value", () => {
  const last = head;
  choose(anchor);
  choose(last, true);
  const again = pressed && element.querySelector(`[data-move="${pressed}"]`);
  if (again && document.activeElement === document.body) again.focus();
  pressed = "";
});
document.addEventListener("play", event => {
  const others = [...document.querySelectorAll("audio")].filter(sound => sound !== event.target);
  for (const sound of others) sound.pause();
  const field = element.querySelector(".field");
  if (!field || !element.contains(event.target)) return;
  const wide = Number(field.dataset.seconds);
  const follow = () => {
    const sound = event.target;
    field.style.setProperty("--at", sound.ended ? "-2px" : 100 * sound.currentTime / wide + "%");
    if (!sound.paused) requestAnimationFrame(follow);
  };
  follow();
}, true);
