element.addEventListener("click", event => {
  const button = event.target.closest("[data-place]");
  if (button) trigger("take", {place: Number(button.dataset.place)});
});
