// The method table: native radios, one listener; the server's choice wins over a stale tick.
element.addEventListener('change', (event) => {
  if (event.target.name === 'method') trigger('select', { choice: event.target.value });
});
watch('value', () => {
  element.querySelectorAll('input[name="method"]').forEach((input) => { input.checked = input.hasAttribute('checked'); });
});
