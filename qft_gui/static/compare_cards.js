// The cards around the conversation: who answers, votes, lists of prompts, numbers, exports.
const OTHER = 'other:';

function drawCards(cards) {
  if (cards.choices) ['left', 'right'].forEach((side) => fillChoices(side, cards.choices));
  drawChosen(cards);
  drawFacts(cards);
  drawStanding(cards.standing);
  drawList(cards.list, cards.sample);
  drawJudged(cards.judged);
  drawExported(cards.exported, cards.serve);
  say(part('judge-subject'), cards.subject ? `, of ${cards.subject}` : '');
  say(part('export-subject'), cards.subject ? `What is exported: ${cards.subject}.` : 'Choose a result or a checkpoint on the right.');
  element.querySelectorAll('[data-needs="run"]').forEach((one) => show(one, Boolean(cards.run)));
  say(part('empty'), cards.empty);
  show(part('empty'), Boolean(cards.empty));
}

function fillChoices(side, groups) {
  const select = element.querySelector(`select[data-side="${side}"]`);
  const all = groups.map((group) => {
    const node = make('optgroup');
    node.label = group.label;
    node.append(...group.items.map(([value, label]) => { const one = make('option', '', label); one.value = value; return one; }));
    return node;
  });
  if (side === 'left') { const nobody = make('option', '', 'Nobody: ask only the right one'); nobody.value = ''; all.unshift(nobody); }
  const other = make('option', '', 'Another: a folder or a hub id…');
  other.value = OTHER;
  const shown = select.value, had = select.options.length > 0;
  select.replaceChildren(...all, other);
  if (had) select.value = shown;
}

const drawChosen = (cards) => ['left', 'right'].forEach((side) => drawChoice(side, cards[side]));

// What is typed, or on its way to the app, is not drawn over.
function drawChoice(side, value) {
  const select = element.querySelector(`select[data-side="${side}"]`), field = element.querySelector(`input[data-other="${side}"]`);
  const isTyping = field === document.activeElement;
  if (state.sending || state.choosing === side || (isTyping && field.value.trim() !== value)) return;
  const isListed = [...select.options].some((one) => one.value === value && value !== OTHER);
  const chosen = isListed ? value : OTHER;
  if (select.value !== chosen) select.value = chosen;
  if (isListed && isTyping) select.focus();
  show(field, !isListed && (side === 'left' || Boolean(value)));
  if (!isListed) field.value = value;
}

function chosen(side, isList) {
  const parts = (one) => ({ select: element.querySelector(`select[data-side="${one}"]`), field: element.querySelector(`input[data-other="${one}"]`) });
  const value = (one) => { const { select, field } = parts(one); return select.value === OTHER ? field.value.trim() : select.value; };
  const { select, field } = parts(side);
  if (isList) {
    show(field, select.value === OTHER);
    if (!field.hidden) { field.value = ''; field.focus(); }
  }
  state.choosing = ['left', 'right'].find((one) => !parts(one).field.hidden && !value(one)) ?? null;
  if (!state.choosing) return choose(value('left'), value('right'));
  problem('');
  drawFacts(state.cards);
}

async function choose(left, right) {
  state.sending += 1;
  try { await act('choose', { left, right }); } finally { state.sending -= 1; }
  drawChosen(state.cards);
}

function list(node, lines) {
  if (node.childElementCount === lines.length && [...node.children].every((one, at) => one.textContent === lines[at])) return;
  node.replaceChildren(...lines.map((line) => make('li', '', line)));
}

function drawFacts(cards) {
  const mark = part('proof');
  // Of a model that has no name yet nothing is known.
  const isNamed = !state.choosing;
  show(mark, isNamed && Boolean(cards.proof));
  if (cards.proof) {
    mark.className = `q-st ${cards.proof.tone}`;
    mark.querySelector('use').setAttribute('href', `#i-${cards.proof.shape}`);
    say(mark.querySelector('span'), cards.proof.word);
  }
  list(part('memory'), isNamed ? cards.memory : []);
  const download = part('download');
  show(download, isNamed && Boolean(cards.download));
  say(download.querySelector('p'), cards.download?.line ?? '');
  show(download.querySelector('button'), Boolean(cards.download?.can));
  const blind = part('blind');
  blind.disabled = Boolean(cards.why_not_blind);
  if (blind.disabled) blind.checked = false;
  say(part('why-not-blind'), cards.left && cards.right ? cards.why_not_blind : '');
  const chips = part('chips'), now = [...chips.querySelectorAll('button')].map((one) => one.textContent);
  if (JSON.stringify(now) !== JSON.stringify(cards.chips)) {
    chips.querySelectorAll('button').forEach((one) => one.remove());
    cards.chips.forEach((text) => { const one = make('button', 'q-btn', text); one.dataset.do = 'chip'; chips.append(one); });
  }
}

function rows(table, all) {
  show(table, all.length > 0);
  table.tBodies[0].replaceChildren(...all.map((cells) => {
    const row = make('tr');
    row.append(...cells.map((text, at) => { const cell = make(at ? 'td' : 'th', '', text); if (!at) cell.scope = 'row'; return cell; }));
    return row;
  }));
}

let stood = '';
function drawStanding(told) {
  if (JSON.stringify(told) === stood) return;
  stood = JSON.stringify(told);
  say(part('standing'), told.sentence);
  const bar = part('interval');
  show(bar, Boolean(told.interval));
  if (told.interval) {
    bar.style.setProperty('--lo', told.interval.low);
    bar.style.setProperty('--hi', told.interval.high);
    bar.style.setProperty('--at', told.interval.at);
    bar.setAttribute('aria-label', told.interval.words);
  }
  rows(part('strengths'), told.table.map((one) => [one.model, one.share, one.interval, one.votes]));
  list(part('vote-notes'), [...told.table_notes, ...told.notes]);
  element.querySelectorAll('[data-do="download"][data-what="votes"]').forEach((one) => show(one, told.votes > 0));
}

let listed = '';
function drawList(told, sample) {
  const button = element.querySelector('[data-do="sample"]');
  show(button, Boolean(state.cards.run));
  say(button, sample ? `Take the held-out prompts of ${sample}` : 'Take the questions that were held out');
  button.disabled = state.cards.data.state === 'at work';
  say(part('data-state'), state.cards.data.state === 'at work' ? state.cards.data.text : '');
  if (state.wantsHeldOut && !button.disabled) takeHeldOut(true);
  show(part('list'), Boolean(told));
  if (!told) { part('new-list').open ||= !state.listSeen; state.listSeen = true; listed = ''; return; }
  state.listSeen = true;
  say(part('list-state'), `${told.names}: ${told.state}`);
  part('list-bar').firstElementChild.style.setProperty('--p', told.share);
  show(part('list-bar'), told.at_work);
  element.querySelectorAll('[data-do="list_cancel"]').forEach((one) => show(one, told.at_work));
  element.querySelectorAll('[data-do="list_go_on"]').forEach((one) => show(one, told.can_go_on));
  if (told.problem || part('list-problem').textContent === state.listProblem) { say(part('list-problem'), told.problem); show(part('list-problem'), Boolean(told.problem)); }
  state.listProblem = told.problem;
  say(part('list-title'), told.title);
  show(part('list-title'), Boolean(told.title));
  ballot(part('list-ballot'), Boolean(told.turn));
  const now = told.turn ? `${told.id}/${told.number}` : '';
  if (now === listed) return;
  listed = now;
  part('list-turn').replaceChildren();
  if (!told.turn) return;
  const turn = newTurn(told.turn, false);
  fillTurn(turn, told.turn);
  part('list-turn').append(turn.node);
  announce(told.title);
}

function waits(node, told) {
  if (told.text || !node.classList.contains('bad') || told.state !== 'none') {
    say(node, told.text);
    node.classList.toggle('bad', told.state === 'failed');
    show(node, Boolean(told.text));
  }
}

let judged = '';
function drawJudged(told) {
  waits(part('judged-state'), told);
  element.querySelector('[data-do="cancel"][data-what="eval"]').hidden = told.state !== 'at work';
  element.querySelector('[data-do="judge"]').disabled = told.state === 'at work';
  if (JSON.stringify(told.rows) === judged) return;
  judged = JSON.stringify(told.rows);
  rows(part('judged'), told.rows);
  say(part('judged-verdict'), told.verdict);
  say(part('judged-about'), told.about);
}

function suggest() {
  const form = part('export-form'), forms = Object.keys(state.usual ?? {});
  [...form.options].forEach((one) => { one.hidden = one.disabled = forms.length > 0 && !forms.includes(one.value); });
  if (!forms.includes(form.value) && forms.length) form.value = forms[0];
  const path = state.usual?.[form.value] ?? '';
  part('export-folder').placeholder = path.split(/[\\/]/).at(-1);
  say(part('export-usual'), path && `Left empty, it goes to ${path}`);
}
function drawExported(told, serve) {
  waits(part('export-state'), told);
  element.querySelector('[data-do="cancel"][data-what="export"]').hidden = told.state !== 'at work';
  element.querySelector('[data-do="export"]').disabled = told.state === 'at work';
  state.usual = told.usual;
  show(part('export-place'), told.may_type);
  suggest();
  say(part('export-path'), told.path);
  show(part('export-path'), Boolean(told.path));
  list(part('export-notes'), told.notes);
  say(part('ollama').querySelector('pre'), told.ollama);
  show(part('ollama'), Boolean(told.ollama));
  say(part('serve').querySelector('pre'), serve);
  show(part('serve'), Boolean(serve));
}
