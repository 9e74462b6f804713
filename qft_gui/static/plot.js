// What every plot of the app shares: colours from the page, plotly.js once, axes alike.
const css = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

function loadPlotly() {
  if (window.Plotly) return Promise.resolve();
  window.qftPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement('script');
    script.src = element.querySelector('[data-plotly]').dataset.plotly;
    script.onload = resolve;
    script.onerror = () => reject(new Error('plotly.js did not load'));
    document.head.appendChild(script);
  });
  return window.qftPlotly;
}

function axis(title, more) {
  const ink2 = css('--ink-2'), line = css('--line'), font = { color: ink2, size: 12 };
  return { gridcolor: line, zeroline: false, linecolor: line, tickcolor: line, tickfont: font, ticks: 'outside', ticklen: 4,
    title: { text: title, font, standoff: 8 }, ...more };
}

