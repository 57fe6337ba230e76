// Draws the charts of a page, lets the keyboard read them, and keeps its live part up to date.
"use strict";

const page = document.documentElement;
const locale = page.dataset.locale;

function numbers(drawing) {
  const options = { number: { maximumFractionDigits: 2 }, ratio: { minimumFractionDigits: 3, maximumFractionDigits: 3 }, percent: { maximumFractionDigits: 2 }, money: {} }[drawing.kind];
  if (drawing.kind === "money" && drawing.currency) {
    Object.assign(options, { style: "currency", currency: drawing.currency });
  }
  const format = new Intl.NumberFormat(locale, options);
  return (value) => (value === null ? "–" : format.format(value) + (drawing.kind === "percent" ? " %" : ""));
}

function colours() {
  const style = getComputedStyle(page);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), faint: of("--faint"), line: of("--line"), sheet: of("--sheet"),
           series: of("--series").split(",").map((each) => each.trim()) };
}

function isThere(value) {
  return value !== null && value !== undefined;
}

// Cuts a text between words into lines of so many characters, where its words are no longer.
function folded(text, most) {
  return text.split(" ").reduce((lines, word) => {
    const last = lines.at(-1);
    return last !== undefined && last.length + word.length < most ? [...lines.slice(0, -1), `${last} ${word}`] : [...lines, word];
  }, []);
}

function draw(canvas) {
  const drawing = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
  const written = numbers(drawing);
  const compact = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });
  const { ink, faint, line, sheet, series } = colours();
  const lies = drawing.form === "steps";
  const stacked = drawing.form === "stacked";
  const values = { beginAtZero: true, stacked, border: { display: false }, grid: { color: line },
                   ticks: { color: faint, maxTicksLimit: 6, callback: (value) => compact.format(value) } };
  // Names beside lying bars take a third of the width at most: a long one is written in lines.
  const most = Math.max(10, canvas.parentElement.clientWidth / 22);
  const labels = { stacked, grid: { display: false }, border: { color: line }, ticks: { color: faint, maxRotation: 0, autoSkipPadding: 12, autoSkip: !lies } };
  if (lies) {
    labels.ticks.callback = (_, place) => folded(drawing.labels[place], most);
  }
  const datasets = drawing.series.map((each, place) => {
    const colour = each.compared ? faint : series[place % series.length];
    return {
      label: each.name, data: each.values, borderColor: colour, backgroundColor: drawing.form === "line" ? sheet : colour,
      borderWidth: drawing.form !== "line" ? 0 : each.compared ? 1.5 : 2.5, borderDash: each.compared ? (place % 2 ? [5, 4] : [2, 3]) : [],
      // A value without one beside it has no line.
      pointRadius: ({ dataIndex }) => (isThere(each.values[dataIndex - 1]) || isThere(each.values[dataIndex + 1]) ? 0 : 3),
      // No line goes beyond the values that it joins.
      pointHoverRadius: 5, cubicInterpolationMode: "monotone", maxBarThickness: 34, spanGaps: false,
    };
  });
  return new Chart(canvas, {
    type: drawing.form === "line" ? "line" : "bar",
    data: { labels: drawing.labels, datasets },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, indexAxis: lies ? "y" : "x",
      interaction: { mode: "index", intersect: false, axis: lies ? "y" : "x" },
      scales: lies ? { x: values, y: labels } : { x: labels, y: values },
      plugins: {
        legend: { display: datasets.length > 1, position: "bottom", labels: { color: ink, boxWidth: 14, boxHeight: 3 } },
        tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${written(item.raw)}` } },
      },
    },
  });
}

// The arrow keys go from one value to the next, and what is there is read out.
function steer(canvas) {
  const drawing = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
  const written = numbers(drawing);
  const read = canvas.closest("figure").querySelector(".read");
  let place = -1;
  const show = (next) => {
    const chart = Chart.getChart(canvas);
    place = Math.max(0, Math.min(drawing.labels.length - 1, next));
    const elements = drawing.series.map((_, number) => ({ datasetIndex: number, index: place }));
    chart.setActiveElements(elements);
    chart.tooltip.setActiveElements(elements, { x: 0, y: 0 });
    chart.update("none");
    read.textContent = `${drawing.labels[place]}: ` +
      drawing.series.map((each) => `${each.name} ${written(each.values[place])}`).join(", ");
  };
  const clear = () => {
    const chart = Chart.getChart(canvas);
    place = -1;
    chart.setActiveElements([]);
    chart.tooltip.setActiveElements([], { x: 0, y: 0 });
    chart.update("none");
    read.textContent = "";
  };
  const keys = {
    ArrowRight: () => show(place + 1), ArrowDown: () => show(place + 1),
    ArrowLeft: () => show(place - 1), ArrowUp: () => show(place - 1),
    Home: () => show(0), End: () => show(drawing.labels.length - 1), Escape: clear,
  };
  canvas.addEventListener("keydown", (event) => {
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  canvas.addEventListener("blur", clear);
}

let charts = [];

function drawAll() {
  charts.forEach((chart) => chart.destroy());
  charts = [...document.querySelectorAll("canvas[data-chart]")].map((canvas) => draw(canvas));
  return charts;
}

// What is live is asked for again every second, as long as somebody looks: an event is there about three after it came,
// and is to be seen within five.
function keepLive(part) {
  const address = new URL(location.href);
  address.searchParams.set("part", part.dataset.part);
  const renew = async () => {
    if (!document.hidden && !part.contains(document.activeElement)) {
      try {
        const answer = await fetch(address, { headers: { Accept: "text/html" } });
        if (answer.status === 401) {
          // The login is over, and the page asks for a new one.
          location.reload();
          return;
        }
        const text = await answer.text();
        if (answer.status < 500 || text) {
          part.innerHTML = text;
        }
      } catch {
        part.querySelector(".live-problem")?.removeAttribute("hidden");
      }
    }
    setTimeout(renew, 1000);
  };
  setTimeout(renew, 1000);
}

addEventListener("DOMContentLoaded", () => {
  if (typeof Chart !== "undefined") {
    Chart.defaults.font.family = "system-ui, sans-serif";
    drawAll().forEach((chart) => steer(chart.canvas));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  }
  document.querySelectorAll("[data-part]").forEach(keepLive);
  // A choice that changes the page at once; without a script there is the button.
  document.querySelectorAll("form.filters").forEach((form) => {
    form.querySelectorAll("select").forEach((select) => select.addEventListener("change", () => form.requestSubmit()));
  });
});
