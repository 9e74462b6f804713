// The Compare page: asks the window's process for what changed, at most ten times a second while an
// answer is written, and out of sight once a second: an answer that no page asks for is ended.
// Everything from models and people enters by textContent or as a text node.
const BUSY_MS = 100, BACKGROUND_MS = 1000, REST_MS = 4000;
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const show = (node, is) => { if (node.hidden === is) node.hidden = !is; };
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const key = (() => {
  const fresh = () => [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, '0')).join('');
  try {
    const known = sessionStorage.getItem('qft-talk') || fresh();
    sessionStorage.setItem('qft-talk', known);
    return known;
  } catch { return fresh(); }
})();
const state = { version: 0, epoch: 0, stamp: '', cards: null, answering: false, timer: 0, looked: 0, sending: 0, talk: null, failures: 0, editing: null, edited: null };

const settings = () => Object.fromEntries([...element.querySelectorAll('.q-cmp-settings [name]')].map((field) => [field.name, field.value]));

// One request at a time: an answer belongs to the state it was asked in.
let queue = Promise.resolve();
function call(op, more = {}) {
  const job = queue.then(async () => {
    const told = await server.compare({ op, key, since: state.version, epoch: state.epoch, stamp: state.stamp, held: held(), ...more });
    if (!told || !told.ok) {
      state.failures += 1;
      problem(told?.why ?? 'The app does not answer. It may have been closed.');
      return told;
    }
    if (state.failures) { state.failures = 0; problem(''); }
    take(told, op);
    return told;
  });
  queue = job.catch(() => {});
  return job;
}

function take(told, op) {
  const focused = document.activeElement;
  if (told.reset) forgetTurns();
  state.version = told.version;
  state.epoch = told.epoch;
  told.turns.forEach(drawTurn);
  if (told.answering !== state.answering) announce(told.answering ? 'The answer is being written.' : told.problem ? '' : 'The answer is there.');
  state.answering = told.answering;
  state.canBringBack = told.can_be_brought_back;
  if (told.answering) show(part('prompts'), false);
  if (told.cards) { state.cards = told.cards; state.stamp = told.cards.stamp; drawCards(told.cards); }
  const loading = part('loading');
  say(loading, told.loading);
  show(loading, Boolean(told.loading));
  const why = told.why ?? (op === 'look' && state.ownWhy ? state.ownWhy : told.problem);
  state.ownWhy = told.why ?? (op === 'look' ? state.ownWhy : '');
  if (told.returned) takeBack(told.returned);
  problem(why);
  drawButtons();
  keepPlace(focused);
}

// A question that nobody answered is in the field again, before what was written meanwhile.
function takeBack(text) {
  if (state.edited?.text === text && turns.has(state.edited.turn)) return beginEdit(state.edited.turn, text);
  write(question.value ? `${text}\n${question.value}` : text);
}

// Where the focus was on a button that went, it moves to what comes next.
function keepPlace(focused) {
  if (!element.contains(focused) || document.activeElement !== document.body) return;
  const title = focused.closest('section')?.querySelector('h2');
  if (title) title.tabIndex = -1;
  (title ?? question).focus({ preventScroll: true });
}

function problem(text) {
  const node = part('problem');
  say(node, text || '');
  show(node, Boolean(text));
}

let spoken = 0;
function announce(text) {
  if (!text || performance.now() - spoken < 1000) return;
  spoken = performance.now();
  say(part('announce'), text);
}

function schedule(delay) {
  clearTimeout(state.timer);
  state.timer = setTimeout(look, delay);
}

const isAtWork = (cards) => cards && (cards.list?.at_work || cards.judged.state === 'at work' || cards.exported.state === 'at work' || cards.data.state === 'at work');

async function look() {
  if (!element.isConnected) return leave();
  const unseen = document.hidden || element.offsetParent === null;
  if (unseen && !state.answering) return schedule(REST_MS);
  const began = performance.now(), cards = began - state.looked >= BACKGROUND_MS;
  if (cards) state.looked = began;
  const was = state.answering;
  await call('look', { cards: cards || !was });
  if (was && !state.answering) await call('look', { cards: true });
  schedule(state.failures ? REST_MS : state.answering ? (unseen ? BACKGROUND_MS : BUSY_MS) : isAtWork(state.cards) ? BACKGROUND_MS : REST_MS);
}

async function act(op, more = {}) {
  const told = await call(op, more);
  schedule(state.answering ? BUSY_MS : BACKGROUND_MS);
  return told;
}

const question = part('question');
function grow() {
  question.style.height = 'auto';
  question.style.height = `${Math.min(160, question.scrollHeight + 2)}px`;
}

function write(text) {
  question.value = text;
  grow();
}

async function ask(text) {
  if (!text.trim() || state.answering) return;
  if (state.choosing) return problem(`Name the model on the ${state.choosing} first, or choose one of the list.`);
  const edit = state.editing;
  const told = await act('ask', { question: text, settings: settings(), blind: part('blind').checked, instead_of: edit?.turn });
  if (!told?.ok || told.why) return;
  state.edited = edit && { turn: edit.turn, text };
  if (question.value.trim() === text.trim()) write(edit?.draft ?? '');
}

const places = { left: 'a', right: 'b', both: 'both' };
const ACTS = {
  ask: () => ask(question.value),
  stop: () => act('stop'),
  again: (button) => act('again', { side: places[button.dataset.side], settings: settings() }),
  clear: () => act('clear'),
  unload: () => act('unload'),
  allow: () => act('allow'),
  bring_back: () => act('bring_back'),
  edit: (button) => beginEdit(Number(button.dataset.turn)),
  edit_cancel: () => endEdit(),
  chip: (button) => ask(button.textContent),
  reveal: () => act('reveal', { turn: state.hidden }),
  vote: (button) => vote(button.dataset.choice, button.closest('[data-part="list-ballot"]') !== null),
  prompt: async () => {
    if (!part('prompts').hidden) return show(part('prompts'), false);
    const told = await act('prompt', { settings: settings() });
    if (told?.prompts) drawPrompts(told.prompts);
  },
  download: async (button) => save((await act('download', { what: button.dataset.what, form: button.dataset.form }))?.file),
  sample: () => takeHeldOut(false),
  list: async () => {
    const told = await cardAct('list', 'list-problem', { prompts: part('list-prompts').value, settings: settings() });
    if (told?.ok && !told.why) { part('list-prompts').value = ''; part('new-list').open = false; }
  },
  list_cancel: () => cardAct('list_cancel', 'list-problem'),
  list_go_on: () => cardAct('list_go_on', 'list-problem'),
  judge: () => cardAct('judge', 'judged-state', { data: part('judge-data').value }),
  export: () => cardAct('export', 'export-state', { form: part('export-form').value, folder: part('export-folder').value }),
  cancel: (button) => act('cancel', { what: button.dataset.what }),
};

// The held-out part of a dataset is looked into in the background; its questions are fetched then.
async function takeHeldOut(found) {
  state.wantsHeldOut = false;
  const told = await cardAct('sample', 'list-problem', { found });
  if (told?.prompt_text) part('list-prompts').value = told.prompt_text;
  else if (told?.ok && !told.why) state.wantsHeldOut = true;
}

// What is in the way of a card stands in that card.
async function cardAct(op, where, more = {}) {
  const told = await act(op, more), node = part(where);
  if (told?.why) { problem(''); state.ownWhy = ''; say(node, told.why); node.classList.add('bad'); show(node, true); }
  return told;
}

async function vote(choice, inList) {
  const turn = inList ? state.cards?.list?.number : state.open;
  if (turn === null || turn === undefined) return;
  if (!inList) return act('vote', { turn, choice });
  await cardAct('list_vote', 'list-problem', { list: state.cards.list.id, prompt: turn, choice });
  // The next prompt is voted on by keyboard, too; after the last one it is said what came of them.
  const next = part(part('list-ballot').hidden ? 'list-state' : 'list-ballot');
  next.tabIndex = -1;
  next.focus({ preventScroll: true });
}

function save(file) {
  if (!file) return;
  const link = make('a');
  link.href = URL.createObjectURL(new Blob([file.text], { type: 'text/plain;charset=utf-8' }));
  link.download = file.name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const KEYS = { ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie', ArrowUp: 'both_bad', 1: 'left', 2: 'right', 3: 'tie', 4: 'both_bad' };
function onKey(event) {
  if (element.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const field = event.target.closest('input, textarea, select, [contenteditable]'), isArrow = event.key.startsWith('Arrow');
  if (field && (field !== question || question.value || !isArrow)) return;
  if (isArrow && event.target.closest('[role="tab"]')) return;
  const choice = KEYS[event.key], isAtList = part('list').parentElement.contains(event.target);
  const inList = isAtList || part('ballot').hidden;
  if (!choice || part(inList ? 'list-ballot' : 'ballot').hidden) return;
  event.preventDefault();
  vote(choice, inList);
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-do]');
  if (!button || button.disabled) return;
  event.preventDefault();
  ACTS[button.dataset.do](button);
});
element.addEventListener('submit', (event) => event.preventDefault());
question.addEventListener('input', grow);
question.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && state.editing) return endEdit();
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask(question.value);
});
element.addEventListener('change', (event) => {
  const { side, other } = event.target.dataset;
  if (side || other) chosen(side ?? other, Boolean(side));
  if (event.target === part('export-form')) suggest();
});

function leave() {
  clearTimeout(state.timer);
  document.removeEventListener('keydown', onKey);
  document.removeEventListener('visibilitychange', onVisible);
  seen.disconnect();
}
const onVisible = () => { if (!document.hidden) schedule(0); };
const seen = new IntersectionObserver((entries) => { if (entries.some((one) => one.isIntersecting)) schedule(0); });
document.addEventListener('keydown', onKey);
document.addEventListener('visibilitychange', onVisible);
seen.observe(element.querySelector('.q-cmp'));
watch('talk', () => { if (props.talk?.at !== state.talk) { state.talk = props.talk?.at; act('show', props.talk); } });
if (props.talk) { state.talk = props.talk.at; act('show', props.talk); }
schedule(0);
