// Turns of a conversation: a question, and a cell for each reply that is only ever appended to.
// Turns out of sight are not laid out (content-visibility), so a long conversation costs nothing.
const turns = new Map();
const CHOICES = [['left', 'A is better', '← or 1'], ['right', 'B is better', '→ or 2'], ['tie', 'Tie', '↓ or 3'], ['both_bad', 'Both bad', '↑ or 4']];
const VOTED = { left: 'You preferred A.', right: 'You preferred B.', tie: 'You called it a tie.', both_bad: 'You called both bad.' };

function forgetTurns() {
  turns.clear();
  part('log').replaceChildren();
  show(part('prompts'), false);
}

// What the page has of the turn that is being written: only the rest is sent.
function held() {
  const last = [...turns.values()].at(-1);
  if (!last) return null;
  return { turn: last.number, generation: last.generation, lengths: last.cells.map((cell) => cell.length) };
}

function newTurn(frame, canEdit) {
  const node = make('div', 'q-cmp-turn'), head = make('div', 'q-cmp-asked');
  const asked = make('p', '', frame.question);
  head.append(asked);
  if (canEdit) {
    const edit = make('button', 'q-btn q-quiet-btn', 'Edit');
    Object.assign(edit.dataset, { do: 'edit', turn: frame.number });
    edit.setAttribute('aria-label', `Edit question ${frame.number}`);
    head.append(edit);
  }
  const row = make('div', 'q-cmp-pair'), note = make('p', 'q-small'), voted = make('p', 'q-small');
  row.classList.toggle('is-single', frame.cells.length === 1);
  const cells = frame.cells.map(() => {
    const cell = make('div', 'q-cmp-cell'), name = make('h3', 'q-h'), text = make('p', 'q-cmp-text'), line = make('p', 'q-small q-side-line');
    cell.append(name, text, line);
    row.append(cell);
    return { node: cell, name, text, line, length: 0 };
  });
  note.hidden = voted.hidden = true;
  node.append(head, row, voted, note);
  return { node, cells, note, voted, question: frame.question, number: frame.number, generation: frame.generation };
}

function fillTurn(turn, frame) {
  const isNew = turn.generation !== frame.generation;
  turn.generation = frame.generation;
  frame.cells.forEach((told, at) => {
    const cell = turn.cells[at];
    say(cell.name, told.name);
    say(cell.line, told.line);
    cell.node.dataset.shown = told.side ?? 'hidden';
    if (told.from !== 0 && told.from === cell.length && !isNew) append(cell.text, told.text);
    else if (told.from === 0) say(cell.text, told.text);
    cell.length = told.from + lengthOf(told.text);
  });
  say(turn.note, frame.notes);
  show(turn.note, Boolean(frame.notes));
  say(turn.voted, frame.vote ? VOTED[frame.vote] : '');
  show(turn.voted, Boolean(frame.vote));
}

// Python counts characters, JavaScript counts halves of some of them.
const lengthOf = (text) => { let count = 0; for (const _ of text) count += 1; return count; };

function append(node, text) {
  if (!text) return;
  const last = node.lastChild;
  if (last && last.data.length < 4000) last.appendData(text);
  else node.append(document.createTextNode(text));
}

function drawTurn(frame) {
  const log = part('log');
  let turn = turns.get(frame.number);
  if (!turn || turn.cells.length !== frame.cells.length) {
    turn?.node.remove();
    turn = newTurn(frame, true);
    turns.set(frame.number, turn);
    log.append(turn.node);
    show(log, true);
    fillTurn(turn, frame);
    log.scrollTop = log.scrollHeight;
  } else {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    fillTurn(turn, frame);
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }
  turn.awaits = frame.awaits_vote;
  turn.isHidden = frame.can_be_revealed;
  turn.answering = frame.answering;
}

function drawButtons() {
  const all = [...turns.values()], last = all.at(-1), idle = !state.answering;
  const open = last?.awaits ? last : undefined;  // a further question ends the vote on those before
  const votes = part('ballot'), wasOpen = !votes.hidden;
  state.open = open?.number;
  state.hidden = last?.isHidden ? last.number : undefined;
  ballot(votes, Boolean(open));
  // Whoever waited with an empty field votes by keyboard at once, and then asks on.
  if (open && !wasOpen && document.activeElement === question && !question.value) votes.focus({ preventScroll: true });
  if (!open && wasOpen && (votes.contains(document.activeElement) || document.activeElement === document.body)) question.focus({ preventScroll: true });
  show(part('log'), all.length > 0);
  const button = (what, more = '') => element.querySelectorAll(`[data-do="${what}"]${more}`);
  const both = last?.cells.length === 2, isHidden = last?.cells[0].node.dataset.shown === 'hidden';
  button('ask').forEach((one) => show(one, idle));
  button('stop').forEach((one) => show(one, !idle));
  button('again').forEach((one) => show(one, Boolean(last) && idle && (one.dataset.side === 'both' || (both && !isHidden))));
  button('reveal').forEach((one) => show(one, state.hidden !== undefined));
  button('prompt').forEach((one) => show(one, Boolean(last) && idle && !isHidden));
  button('clear').forEach((one) => show(one, Boolean(last) && idle));
  button('edit').forEach((one) => { one.disabled = !idle; });
  button('unload').forEach((one) => show(one, Boolean(state.cards?.loaded) && idle));
  button('download', '[data-what="conversation"]').forEach((one) => show(one, Boolean(last) && idle));
  button('bring_back').forEach((one) => show(one, state.canBringBack && idle));
  show(part('chips'), idle && !last && Boolean(state.cards?.chips.length));
  drawEditing();
}

function drawEditing() {
  const edited = state.editing && turns.get(state.editing.turn);
  if (state.editing && !edited) state.editing = null;
  show(part('editing'), Boolean(edited));
  if (!edited) return;
  const isLast = edited === [...turns.values()].at(-1);
  say(part('editing').querySelector('span'), `Editing question ${edited.number}.${isLast ? '' : ' Asking it removes what came after it.'}`);
}

// The question is written anew in the field; the turns stay until it is asked.
function beginEdit(number, text) {
  state.editing = { turn: number, draft: state.editing?.draft ?? question.value };
  write(text ?? turns.get(number).question);
  drawEditing();
  question.focus();
}

function endEdit() {
  write(state.editing?.draft ?? '');
  state.editing = null;
  drawEditing();
  question.focus();
}

function ballot(node, is) {
  if (is && !node.firstChild) {
    node.tabIndex = -1;
    node.setAttribute('role', 'group');
    node.setAttribute('aria-label', 'Your vote');
    CHOICES.forEach(([choice, words, keys]) => {
      const button = make('button', 'q-btn', words), hint = make('small', '', keys);
      hint.setAttribute('aria-hidden', 'true');
      Object.assign(button.dataset, { do: 'vote', choice });
      button.append(hint);
      node.append(button);
    });
  }
  show(node, is);
}

function drawPrompts(all) {
  const node = part('prompts');
  node.replaceChildren(...all.map((one) => {
    const box = make('div'), text = make('pre', 'q-rendered', one.text);
    text.tabIndex = 0;
    text.setAttribute('aria-label', `What ${one.name} read`);
    box.append(make('h3', 'q-h', one.name), text, make('p', 'q-small', one.line));
    return box;
  }));
  show(node, true);
}
