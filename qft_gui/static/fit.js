// The fit card: its buttons, and what a person has opened in it, which a new answer does not close.
const open = new Set();
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || button.disabled) return;
  following = FOLLOWING[button.dataset.do];
  trigger('select', { act: button.dataset.do, change: button.dataset.change ?? '' });
});
element.addEventListener('toggle', (event) => {
  const kept = event.target.dataset?.keep;
  if (kept && event.target.isConnected) event.target.open ? open.add(kept) : open.delete(kept);
}, true);
// A button goes with the answer to its click, and with every other one. The focus goes to the button
// that follows it, and until there is one stays where it was.
const FOLLOWING = { fit: 'undo', apply: 'undo', undo: 'fit', try: 'cancel', cancel: 'try' };
let focused = null, following = null;
element.addEventListener('focusin', (event) => { focused = event.target.closest('[data-do]')?.dataset.do ?? null; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = following = null; });
const refocus = () => {
  if (!focused || document.activeElement !== document.body) return;
  const next = following && element.querySelector(`[data-do="${following}"]`);
  if (next) following = null;
  (next ?? element.querySelector(`[data-do="${focused}"]`))?.focus({ preventScroll: true });
};
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
  refocus();
  element.querySelectorAll('details[data-keep]').forEach((one) => { one.open = open.has(one.dataset.keep); });
});
