// The fit card: its buttons, and what a person has opened in it, which a new answer does not close.
const open = new Set();
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || button.disabled) return;
  trigger('select', { act: button.dataset.do, change: button.dataset.change ?? '' });
});
element.addEventListener('toggle', (event) => {
  const kept = event.target.dataset?.keep;
  if (kept && event.target.isConnected) event.target.open ? open.add(kept) : open.delete(kept);
}, true);
// Pointing at a part of the bar explains it in the legend.
let pointed = null;
const explain = () => element.querySelectorAll('.q-terms > li').forEach((row) => {
  row.classList.toggle('is-shown', row.dataset.term === pointed);
});
element.addEventListener('pointerover', (event) => {
  pointed = event.target.closest('.q-bar > [data-term]')?.dataset.term ?? null;
  explain();
});
element.addEventListener('pointerleave', () => { pointed = null; explain(); });
element.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && event.target.matches('.q-terms > li')) event.target.blur();
});
watch('value', () => {
  explain();
  element.querySelectorAll('details[data-keep]').forEach((one) => { one.open = open.has(one.dataset.keep); });
});
