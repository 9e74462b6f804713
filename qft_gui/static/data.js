// The data card and the example: buttons, selects and number fields tell what is wished, and what a
// person has opened or chosen stays while answers to older questions come in.
const opened = new Map(), pending = new Map();
const name = (field) => `${field.dataset.act} ${field.dataset.role ?? ''}`;
const tell = (field, value) => trigger('select', { act: field.dataset.act, role: field.dataset.role ?? '', value });
let focused = null;
element.addEventListener('click', (event) => {
  const summary = event.target.closest('summary');
  if (summary) {
    const details = summary.parentElement;
    opened.set(details.dataset.keep, !details.open);
    if (!details.open) trigger('select', { act: 'open', role: '', value: details.dataset.keep });
    return;
  }
  const button = event.target.closest('button[data-act]');
  if (button && !button.disabled) tell(button, button.dataset.value ?? '');
});
element.addEventListener('change', (event) => {
  const field = event.target.closest('select[data-act], input[data-act]');
  if (!field || !field.checkValidity()) return field?.reportValidity();
  // What a person works in stays open, also where it had opened by itself.
  const around = field.closest('details[data-keep]');
  if (around) opened.set(around.dataset.keep, true);
  pending.set(name(field), field.value);
  tell(field, field.value);
});
element.addEventListener('focusin', (event) => { focused = event.target.closest('button[data-label]')?.dataset.label ?? null; });
element.addEventListener('focusout', (event) => { if (event.relatedTarget) focused = null; });
watch('value', () => {
  element.querySelectorAll('details[data-keep]').forEach((one) => {
    one.open = opened.get(one.dataset.keep) ?? one.hasAttribute('open');
  });
  element.querySelectorAll('select[data-act], input[data-act]').forEach((field) => {
    const wished = pending.get(name(field)), now = field.dataset.now;
    if (wished === now) pending.delete(name(field));
    if (field === document.activeElement && field.type !== 'select-one') return;
    field.value = pending.get(name(field)) ?? now;
  });
  // A button that went with the answer to its click leaves the focus to the one in its place.
  if (focused && document.activeElement === document.body) element.querySelector(`[data-label="${focused}"]:not(:disabled)`)?.focus({ preventScroll: true });
});
