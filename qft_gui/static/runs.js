// The runs table: one listener for the buttons of all rows.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-run]');
  if (button) trigger('select', { run: button.dataset.run });
});
