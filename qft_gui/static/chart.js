// The plots of the Run page. The node is never replaced: new points are added to what is there,
// so a zoom survives. Text enters by textContent only.
const GIB = 2 ** 30;
const POLL_MS = 1000, REST_MS = 5000, BACK_OFF_MS = [2000, 5000, 10000], MOST_POINTS = 2000;
const nodes = {
  loss: element.querySelector('[data-plot="loss"]'),
  memory: element.querySelector('[data-plot="memory"]'),
};
const state = { run: null, attempt: 0, since: 0, steps: null, minutes: false, failures: 0, busy: false, timer: 0, limits: null, peak: null };

function layout(xaxis, yaxis, shapes) {
  const narrow = nodes.loss.clientWidth < 420;
  return {
    uirevision: `${state.run}/${state.attempt}`, showlegend: false, hovermode: 'x', dragmode: 'zoom', shapes,
    margin: { l: narrow ? 44 : 52, r: 16, t: 8, b: 44 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: css('--font') || 'system-ui' },
    hoverlabel: { bgcolor: css('--card'), bordercolor: css('--control'), font: { color: css('--ink') } },
    xaxis: { ...xaxis, showgrid: false, nticks: narrow ? 5 : 8 }, yaxis: { ...yaxis, nticks: 6, ticks: '' },
  };
}

function line(x, y, color, width, more) {
  return { type: 'scatter', x, y, mode: 'lines', line: { color, width }, hovertemplate: '%{y:.4~g}<extra></extra>', ...more };
}

function drawLoss(d) {
  const accent = css('--accent'), ink = css('--ink');
  const traces = [
    line(d.loss.x, d.loss.raw, accent, 1, { opacity: 0.3, name: 'training' }),
    line(d.loss.x, d.loss.smooth, accent, 2.5, { name: 'smoothed', hoverinfo: 'skip', hovertemplate: undefined }),
    { type: 'scatter', x: d.eval.x, y: d.eval.y, name: 'held-out', cliponaxis: false, mode: 'lines+markers', hovertemplate: '%{y:.4~g}<extra></extra>',
      line: { color: ink, width: 1.5, dash: 'dot' }, marker: { color: ink, size: 7 } },
  ];
  const range = state.steps ? { range: [0, state.steps * 1.01] } : { rangemode: 'tozero' };
  return Plotly.react(nodes.loss, traces, layout(axis('step', range), axis('nats per token')), config);
}

function drawMemory(d) {
  const accent = css('--accent'), limits = state.limits || {}, shapes = [];
  const across = (y0, y1, more) => shapes.push({ type: 'rect', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0, y1, line: { width: 0 }, ...more });
  const rule = (y, style) => shapes.push({ type: 'line', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0: y, y1: y, line: style });
  if (limits.total) {
    across(limits.low / GIB, limits.high / GIB, { fillcolor: css('--accent-soft') });
    rule(limits.total / GIB, { color: accent, width: 1.5, dash: '8px,4px' });
  }
  const used = gib(d.memory.used), shown = [limits.high / GIB || 0];
  // A limit far above the curve would flatten it: then the legend alone states it.
  if (limits.free && limits.free < 4 * Math.max(limits.high || 0, ...d.memory.used)) {
    rule(limits.free / GIB, { color: css('--ink'), width: 2, dash: '3px,3px' });
    shown.push(limits.free / GIB);
  }
  const traces = [
    line(times(d.memory.x), gib(d.memory.device), css('--ink-2'), 1, { name: 'whole card' }),
    line(times(d.memory.x), used, accent, 2.5, { name: 'measured' }),
    { type: 'scatter', name: 'peak', x: d.peak ? times([d.peak.x]) : [], y: d.peak ? gib([d.peak.bytes]) : [], mode: 'markers', cliponaxis: false,
      marker: { symbol: 'triangle-up', size: 12, color: css('--ink'), line: { color: css('--card'), width: 1 } }, hovertemplate: 'peak counter %{y:.4~g}<extra></extra>' },
    { type: 'scatter', x: shown.map(() => 0), y: shown, mode: 'markers', marker: { opacity: 0 }, hoverinfo: 'skip' },
  ];
  const x = axis(state.minutes ? 'minutes' : 'seconds', { rangemode: 'tozero' });
  return Plotly.react(nodes.memory, traces, layout(x, axis('GiB', { rangemode: 'tozero' }), shapes), config);
}

const config = { responsive: false, displaylogo: false, displayModeBar: false };
const gib = (values) => values.map((bytes) => (bytes === null ? null : bytes / GIB));
const times = (all) => all.map((seconds) => (state.minutes ? seconds / 60 : seconds));

function extend(d) {
  const jobs = [];
  if (d.loss.x.length) jobs.push(Plotly.extendTraces(nodes.loss, { x: [d.loss.x, d.loss.x], y: [d.loss.raw, d.loss.smooth] }, [0, 1]));
  if (d.eval.x.length) jobs.push(Plotly.extendTraces(nodes.loss, { x: [d.eval.x], y: [d.eval.y] }, [2]));
  if (d.memory.x.length) jobs.push(Plotly.extendTraces(nodes.memory, { x: [times(d.memory.x), times(d.memory.x)], y: [gib(d.memory.device), gib(d.memory.used)] }, [0, 1]));
  return Promise.all(jobs);
}

const numbers = (values) => values.filter((value) => typeof value === 'number');
const words = (value, digits) => (value === undefined || !Number.isFinite(value) ? '–' : value.toFixed(digits));

function readOut(all) {
  const say = (name, text) => { const at = element.querySelector(`[data-last="${name}"]`); if (at.textContent !== text) at.textContent = text; };
  const fine = (bytes) => (bytes === undefined ? '–' : words(bytes / GIB, bytes < GIB ? 2 : 1));
  say('smooth', words(numbers(all.smooth).at(-1), 2));
  say('eval', words(numbers(all.eval).at(-1), 2));
  say('used', words(numbers(all.used).at(-1), 2));
  say('device', words(numbers(all.device).at(-1), 1));
  say('total', fine(state.limits?.total));
  say('band', state.limits?.total ? `${fine(state.limits.low)} to ${fine(state.limits.high)}` : '');
  say('free', fine(state.limits?.free));
  say('peak', fine(state.peak?.bytes));
  element.querySelector('[data-legend="peak"]').hidden = !state.peak;
  element.querySelector('[data-legend="device"]').hidden = !state.onGpu;
  const quantity = element.querySelector('[data-quantity]');
  quantity.textContent = state.onGpu ? 'tensors on the GPU, GiB' : 'resident memory of the run, GiB';
  for (const name of ['raw', 'eval', 'used']) {
    const known = numbers(all[name]), cells = element.querySelectorAll(`[data-row="${name}"] td`);
    const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    [known.at(-1), low, high].forEach((value, at) => { cells[at].textContent = words(value, 2); });
  }
  const told = { forecast: [state.limits?.total, state.limits?.low, state.limits?.high], peak: [state.peak?.bytes] };
  for (const [name, values] of Object.entries(told)) {
    const cells = element.querySelectorAll(`[data-row="${name}"] td`);
    values.forEach((bytes, at) => { cells[at].textContent = fine(bytes); });
  }
}

const hasLoss = (d) => d.loss.x.length + d.eval.x.length > 0;
const hasMemory = (d) => d.memory.x.length > 0;

// No axes before there is a point to see: a sentence holds their place.
function plot(name, hasPoints, draw) {
  nodes[name].hidden = !hasPoints;
  element.querySelector(`[data-empty="${name}"]`).hidden = hasPoints;
  if (hasPoints) return draw();
  return Plotly.purge(nodes[name]);
}

function drawn() {
  const y = (node, at) => node.data?.[at].y ?? [];
  const { loss, memory } = nodes;
  return { raw: y(loss, 0), smooth: y(loss, 1), eval: y(loss, 2), used: y(memory, 1), device: y(memory, 0) };
}

async function show(d) {
  const minutes = state.minutes || (d.memory.x.at(-1) ?? 0) > 180;
  const limits = JSON.stringify([d.limits, d.peak]) !== JSON.stringify([state.limits, state.peak]);
  const first = window.Plotly && ((hasLoss(d) && !nodes.loss.data) || (hasMemory(d) && !nodes.memory.data));
  const again = d.reset || first || minutes !== state.minutes || d.steps !== state.steps || limits || d.on_gpu !== state.onGpu;
  if (again && !d.reset) return false;
  Object.assign(state, { attempt: d.attempt, steps: d.steps, minutes, limits: d.limits, peak: d.peak, onGpu: d.on_gpu });
  state.since = d.next;
  if (!window.Plotly) {
    readOut({ raw: d.loss.raw, smooth: d.loss.smooth, eval: d.eval.y, used: gib(d.memory.used), device: gib(d.memory.device) });
    return true;
  }
  if (d.reset) await Promise.all([plot('loss', hasLoss(d), () => drawLoss(d)), plot('memory', hasMemory(d), () => drawMemory(d))]);
  else await extend(d);
  readOut(drawn());
  return (nodes.loss.data?.[0].x.length ?? 0) <= MOST_POINTS;
}

function schedule(delay) {
  clearTimeout(state.timer);
  state.timer = setTimeout(poll, delay);
}

function reload(run) {
  Object.assign(state, { run, attempt: 0, since: 0, minutes: false, limits: null, peak: null });
  schedule(0);
}

async function poll() {
  if (!element.isConnected) return leave();
  if (state.busy || document.hidden || element.offsetParent === null || !state.run) return schedule(POLL_MS);
  state.busy = true;
  const run = state.run, stale = element.querySelector('.q-stale');
  const d = await server.points({ run, attempt: state.attempt, since: state.since });
  state.busy = false;
  if (run !== state.run) return schedule(0);
  if (!d || !d.ok) {
    stale.hidden = false;
    return schedule(BACK_OFF_MS[Math.min(state.failures++, BACK_OFF_MS.length - 1)]);
  }
  stale.hidden = true;
  state.failures = 0;
  if (await show(d)) return schedule(d.over ? REST_MS : POLL_MS);
  state.since = 0;
  schedule(0);
}

function leave() {
  clearTimeout(state.timer);
  themes.disconnect();
  sizes.disconnect();
  document.removeEventListener('visibilitychange', onVisible);
}

const onVisible = () => { if (!document.hidden) schedule(0); };
const themes = new MutationObserver(() => { state.since = 0; schedule(0); });
const sizes = new ResizeObserver(() => {
  for (const node of Object.values(nodes)) if (node.clientWidth && node._fullLayout) Plotly.Plots.resize(node);
});
themes.observe(document.body, { attributes: true, attributeFilter: ['class'] });
Object.values(nodes).forEach((node) => sizes.observe(node));
document.addEventListener('visibilitychange', onVisible);
watch('run', () => { if (props.run !== state.run) reload(props.run); });
loadPlotly()
  .catch(() => element.querySelectorAll('.q-twin').forEach((twin) => { twin.open = true; }))
  .finally(() => reload(props.run));
