// The open sound: its codes as cells over its picture. The selection is the rectangle from `anchor` to `head`, each
// [row, column], or null; it outlasts takes of the same size.
const stage = document.querySelector(".stage"), grid = stage.querySelector("[role=grid]");
const field = stage.querySelector(".plot .field");
let sound = null, cells = [], anchor = null, head = [0, 0], isDragging = false, hasMoved = false;
let listeners = {changed: () => {}, drawn: () => {}};

export const listen = handlers => { listeners = handlers; };
export const open = () => sound;
export const headCell = () => anchor && head;
const between = (x, a, b) => Math.min(a, b) <= x && x <= Math.max(a, b);
const isMarked = (row, column) =>
  Boolean(anchor) && between(row, anchor[0], head[0]) && between(column, anchor[1], head[1]);
export const marked = () => cells.flat().filter(cell => cell.ariaSelected === "true").map(positionOf);
const positionOf = cell => cell.dataset.cell.split(",").map(Number);
const cellAt = ([row, column]) => cells[row]?.[column];

const mark = () => {
  for (const cell of cells.flat()) {
    cell.ariaSelected = isMarked(...positionOf(cell));
    cell.tabIndex = -1;
  }
  (cellAt(head) ?? cells[0][0]).tabIndex = 0;
  listeners.changed();
};
const select = (position, extend) => {
  if (!cellAt(position)) return;
  head = position;
  if (!extend || !anchor) anchor = position;
  mark();
};
const build = () => {
  grid.replaceChildren();
  cells = Array.from({length: sound.rows}, () => []);
  for (let row = sound.rows - 1; row >= 0; row--) {  // the lowest band is at the bottom
    const line = document.createElement("div");
    line.role = "row";
    for (let column = 0; column < sound.columns; column++) {
      const cell = document.createElement("button");
      cell.type = "button";
      cell.role = "gridcell";
      cell.dataset.cell = `${row},${column}`;
      cells[row].push(cell);
      line.append(cell);
    }
    grid.append(line);
  }
  field.style.setProperty("--columns", sound.columns);
  field.style.setProperty("--rows", sound.rows);
};
const UNIT_SHARE = 0.06;  // of an axis, at its end: a tick there would lie below the unit
const isFree = ([share]) => share < 1 - UNIT_SHARE;
const ticks = (list, marks, unit) => list.replaceChildren(...marks.filter(isFree).map(([share, text]) => {
  const tick = document.createElement("li");
  tick.style.setProperty("--share", 100 * share + "%");
  tick.textContent = text;
  return tick;
}), Object.assign(document.createElement("li"), {className: "unit", textContent: unit}));

export const show = shown => {
  const isSame = sound && sound.rows === shown.rows && sound.columns === shown.columns;
  const hadFocus = grid.contains(document.activeElement);
  if (shown.key !== sound?.key) isDragging = false;
  sound = shown;
  if (!isSame) {
    anchor = null;
    head = [0, 0];
    build();
  }
  cells.forEach((line, row) => line.forEach((cell, column) => {
    const codes = sound.codes[row][column].join(" ");
    cell.dataset.codes = codes;
    cell.ariaLabel = `${sound.bands[row]}, column ${column + 1}, code ${codes}`;
  }));
  grid.ariaLabel = `Codes of ${sound.name}, low frequencies at the bottom: drag, or use arrows with Shift, to mark cells`;
  field.dataset.screen = sound.key;
  field.dataset.seconds = sound.shown_seconds;
  const picture = field.querySelector("img");
  picture.src = `sounds/${sound.key}.png`;
  picture.alt = `Spectrogram of ${sound.name}`;
  ticks(stage.querySelector(".seconds"), sound.seconds_ticks, "s");
  ticks(stage.querySelector(".hertz"), sound.hertz_ticks, "Hz");
  mark();
  if (hadFocus) cellAt(head)?.focus({preventScroll: true});
};

grid.addEventListener("pointerdown", event => {
  const cell = event.target.closest("[data-cell]");
  if (!cell || event.button) return;
  isDragging = true;
  hasMoved = false;
  select(positionOf(cell), event.shiftKey);
});
window.addEventListener("pointermove", event => {
  if (!isDragging) return;
  const box = grid.getBoundingClientRect();  // beyond the picture, the nearest cell counts
  const column = Math.floor(sound.columns * (event.clientX - box.left) / box.width);
  const row = Math.floor(sound.rows * (box.bottom - event.clientY) / box.height);
  const clamp = (x, most) => Math.max(0, Math.min(most - 1, x));
  const position = [clamp(row, sound.rows), clamp(column, sound.columns)];
  if (position.join() === head.join()) return;
  hasMoved = true;
  select(position, true);
});
for (const kind of ["pointerup", "pointercancel"]) window.addEventListener(kind, () => {
  if (isDragging && hasMoved && kind === "pointerup") listeners.drawn();
  isDragging = false;
});
const steps = {ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1]};
grid.addEventListener("keydown", event => {
  const step = steps[event.key];
  if (event.key === "Enter" && !event.repeat) listeners.drawn(true);
  if (!step && event.key !== "Enter") return;
  event.preventDefault();
  if (!step) return;
  if (!anchor) select(head, false);
  select([head[0] + step[0], head[1] + step[1]], event.shiftKey);
  cellAt(head).focus();
});
grid.addEventListener("click", event => {  // by a screen reader, which sends no pointer events
  const cell = event.target.closest("[data-cell]");
  if (cell && !event.detail) select(positionOf(cell), event.shiftKey);
});
