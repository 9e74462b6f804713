// A file that is dropped anywhere on the page goes the way of the button that chooses one.
const card = element.closest('.q-card');
const input = () => card.querySelector('input[type="file"]');
const isShown = () => element.offsetParent !== null;
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
const mark = (on) => card.classList.toggle('is-over', on);
const refuses = (file) => {
  if (!file || file.size <= props.limit) return false;
  trigger('select', { act: 'too_large', role: '', value: file.name });
  return true;
};
document.addEventListener('dragover', (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  mark(isShown());
});
document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) mark(false); });
document.addEventListener('drop', (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  mark(false);
  const file = event.dataTransfer.files[0];
  if (!isShown() || !file || refuses(file)) return;
  const one = new DataTransfer();
  one.items.add(file);
  input().files = one.files;
  input().dispatchEvent(new Event('change', { bubbles: true }));
});
// Gradio would send a file that is too large before it is told so.
card.addEventListener('change', (event) => {
  if (event.target.type === 'file' && refuses(event.target.files[0])) {
    event.stopImmediatePropagation();
    event.target.value = '';
  }
}, true);
