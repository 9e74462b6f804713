// The plots of the X-ray page, drawn anew for each figure. Text enters by textContent only.
const nodes = Object.fromEntries(['spread', 'outliers', 'errors'].map((name) => [name, element.querySelector(`[data-plot="${name}"]`)]));
const config = { responsive: false, displaylogo: false, displayModeBar: false };
const ROW_PX = 22, LEAST_PX = 220, MOST_PX = 640;

function layout(xaxis, yaxis, more) {
  return {
    showlegend: false, dragmode: 'zoom', margin: { l: 52, r: 16, t: 8, b: 44 }, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: css('--font') || 'system-ui' },
    hoverlabel: { bgcolor: css('--card'), bordercolor: css('--control'), font: { color: css('--ink') }, align: 'left' },
    xaxis: { automargin: true, ...xaxis }, yaxis: { automargin: true, ...yaxis }, ...more,
  };
}

function drawSpread(d) {
  const node = nodes.spread, last = d.rows.length - 1;
  node.style.height = `${Math.min(MOST_PX, Math.max(LEAST_PX, ROW_PX * d.rows.length + 60))}px`;
  const rule = (x) => ({ type: 'line', x0: x, x1: x, yref: 'paper', y0: 0, y1: 1, line: { color: css('--ink'), width: 1.5, dash: '3px,3px' } });
  const apart = { type: 'line', xref: 'paper', x0: 0, x1: 1, y0: last - 0.5, y1: last - 0.5, line: { color: css('--control'), width: 1 } };
  const trace = {
    type: 'heatmap', x: d.centres, y: d.rows, z: d.log, customdata: d.percent, zmin: -4, zmax: 1, showscale: false, hoverongaps: false,
    colorscale: [[0, css('--accent-soft')], [0.8, css('--accent')], [1, css('--accent-strong')]], ygap: d.rows.length > 24 ? 0 : 1,
    hovertemplate: '%{y}, at %{x} rms<br>%{customdata:.3~g} % of its values<extra></extra>',
  };
  const x = axis('size, in units of the layer\u2019s rms', { showgrid: false, range: [-8.125, 8.125], tickvals: [-8, -6, -4, -2, 0, 2, 4, 6, 8] });
  const y = axis('', { type: 'category', autorange: 'reversed', showgrid: false, ticks: '' });
  return Plotly.react(node, [trace], layout(x, y, { shapes: [rule(-4), rule(4), apart], hovermode: 'closest' }), config);
}

// "layer 7" is 7 on the axis; other rows keep their name. A line does not join the two sorts.
const short = (label) => label.replace(/^layer /, '');
const isLayer = (label) => label.startsWith('layer ');

function layerAxis(d) {
  const every = Math.ceil(d.layers.length / 12), names = d.layers.map(short);
  const tickvals = names.filter((name, at) => !isLayer(d.layers[at]) || Number(name) % every === 0);
  return axis('layer', { type: 'category', showgrid: false, categoryorder: 'array', categoryarray: names, tickmode: 'array', tickvals });
}

function drawOutliers(d) {
  const accent = css('--accent');
  const bars = { type: 'bar', x: d.layers.map(short), y: d.outliers, customdata: d.layers, marker: { color: accent },
    hovertemplate: '%{customdata}: %{y:.3~g} %<extra></extra>' };
  const bell = { type: 'line', xref: 'paper', x0: 0, x1: 1, y0: d.bell, y1: d.bell, line: { color: css('--ink'), width: 1.5, dash: '6px,3px' } };
  return Plotly.react(nodes.outliers, [bars], layout(layerAxis(d), axis('% of values', { rangemode: 'tozero', nticks: 6, ticks: '' }), { shapes: [bell], bargap: 0.35, hovermode: 'x' }), config);
}

function curve(d, values, name, color, width, dash, symbol) {
  const x = [], y = [], customdata = [];
  d.layers.forEach((label, at) => {
    if (at && isLayer(label) !== isLayer(d.layers[at - 1])) { x.push(short(label)); y.push(null); customdata.push(''); }
    x.push(short(label)); y.push(values[at]); customdata.push(label);
  });
  return { type: 'scatter', mode: 'lines+markers', x, y, customdata, name, line: { color, width, dash }, marker: { color, size: 7, symbol },
    hovertemplate: `%{customdata}, ${name}: %{y:.3~g} %<extra></extra>` };
}

function drawErrors(d) {
  const traces = [
    curve(d, d.errors.row, 'per row', css('--ink'), 1.5, 'dot', 'circle'),
    curve(d, d.errors.group, 'per 32', css('--m-moments'), 2, 'dash', 'square'),
    curve(d, d.errors.hybrid, 'hybrid', css('--accent'), 2.5, 'solid', 'diamond'),
  ];
  return Plotly.react(nodes.errors, traces, layout(layerAxis(d), axis('% lost', { rangemode: 'tozero', nticks: 6, ticks: '' }), { hovermode: 'x' }), config);
}

async function draw() {
  const d = props.figure;
  if (!d) return;
  for (const [name, text] of Object.entries(d.readings)) element.querySelector(`[data-reading="${name}"]`).textContent = text;
  if (!window.Plotly || element.offsetParent === null) return;
  // Bars of nothing are empty axes: the sentence says it.
  nodes.outliers.hidden = !d.outliers.some((share) => share > 0);
  await Promise.all([drawSpread(d), nodes.outliers.hidden ? Plotly.purge(nodes.outliers) : drawOutliers(d), drawErrors(d)]);
}

const themes = new MutationObserver(() => (element.isConnected ? draw() : leave()));
const sizes = new ResizeObserver(() => {
  for (const node of Object.values(nodes)) {
    if (!node.clientWidth || !window.Plotly) continue;
    if (node._fullLayout) Plotly.Plots.resize(node); else draw();
  }
});
function leave() { themes.disconnect(); sizes.disconnect(); }

themes.observe(document.body, { attributes: true, attributeFilter: ['class'] });
Object.values(nodes).forEach((node) => sizes.observe(node));
watch('figure', draw);
loadPlotly().catch(() => document.querySelectorAll('#xray-table .q-twin').forEach((twin) => { twin.open = true; })).finally(draw);
