// The method table: native radios, one listener. A table that was drawn before the server heard of
// the last tick does not take it back.
let ticked = null;
element.addEventListener('change', (event) => {
  if (event.target.name !== 'method') return;
  ticked = event.target.value;
  trigger('select', { choice: ticked });
});
watch('value', () => {
  const inputs = [...element.querySelectorAll('input[name="method"]')];
  if (inputs.some((input) => input.value === ticked && input.hasAttribute('checked'))) ticked = null;
  inputs.forEach((input) => { input.checked = ticked ? input.value === ticked : input.hasAttribute('checked'); });
});
