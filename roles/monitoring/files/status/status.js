// The status page: reads panels.json, asks Prometheus for each query there, and draws the answers.
// In a query, $window stands for the time over which a rate is taken, and $range for the chosen time.
"use strict";

(() => {
  const PROMETHEUS = "/prometheus/api/v1/";
  const REFRESH = 30; // seconds
  const PATIENCE = 15; // seconds for an answer
  const TRIES = 6; // where the site limits the requests of an address
  const SERIES = 8; // lines in a chart; the others are one, or left out
  const ROWS = 25; // in a table
  // Hours to the distance of two values, and what $window is, in seconds. Prometheus reads a value every 15 s.
  const STEPS = { 1: [15, 120], 6: [60, 180], 24: [300, 600] };
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
  const HEIGHT = 190; // px of a chart
  // Distances of the lines across a chart.
  const TENS = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
  const PARTS = [0.001, 0.01, 0.1].flatMap((part) => [part, 2 * part, 5 * part]);
  const POWERS = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36000, 360000]; // seconds, where the scale is logarithmic
  const STEPS_OF = {
    number: [...PARTS, ...TENS],
    count: TENS,
    seconds: [...PARTS, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400],
    ratio: [0.25, 0.5],
  };

  const state = { hours: 1, start: 0, end: 0, step: 15, charts: {}, starts: [], good: null, running: null, busy: false };
  let panels = null;

  // Elements of the page

  const by = (id) => document.getElementById(id);

  /** Make an element. A text is never read as HTML. */
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Numbers and times as texts

  const digits = (value, most) => new Intl.NumberFormat("en", { maximumFractionDigits: most }).format(value);
  const clock = (time, options) => new Intl.DateTimeFormat("en-GB", options).format(new Date(time * 1000));
  const hour = (time) => clock(time, { hour: "2-digit", minute: "2-digit" });
  const moment = (time) => clock(time, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const three = (value) => digits(value, value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3);

  function duration(value) {
    if (value === 0) return "0 s";
    if (value < 1) return `${digits(value * 1000, value < 0.01 ? 1 : 0)} ms`;
    if (value < 60) return `${digits(value, value < 10 ? 1 : 0)} s`;
    if (value < 3600) return `${digits(value / 60, 1)} min`;
    if (value < 172800) return `${digits(value / 3600, 1)} h`;
    return `${digits(value / 86400, 1)} d`;
  }

  const UNITS = {
    number: three,
    count: (value) => digits(Math.round(value), 0),
    seconds: duration,
    ratio: (value) => `${digits(value * 100, 0)} %`,
    yes: (value) => (value ? "yes" : "no"),
  };
  const text = (unit, value) => (value === null || value === undefined || Number.isNaN(value) ? "–" : UNITS[unit](value));

  // Prometheus

  class Unanswered extends Error {}

  const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

  /** Ask Prometheus; return the data of its answer. What was asked for an earlier choice of the time ends here. */
  async function ask(path, parameters) {
    const run = state.running;
    const data = await answered(path, parameters, 1);
    if (run !== state.running) throw new Error("another time was chosen");
    return data;
  }

  async function answered(path, parameters, tries) {
    let answer;
    try {
      answer = await fetch(`${PROMETHEUS}${path}?${new URLSearchParams(parameters)}`, {
        headers: { Accept: "application/json" },
        signal: AbortSignal.timeout(PATIENCE * 1000),
      });
    } catch (error) {
      throw new Unanswered(
        error.name === "TimeoutError" ? `Prometheus did not answer within ${PATIENCE} seconds.` : "This site does not answer.",
      );
    }
    if (answer.status === 429 && tries < TRIES) {
      await pause(1 + Math.random());
      return answered(path, parameters, tries + 1);
    }
    if (answer.status === 401 || answer.status === 403) throw new Unanswered("The login is not valid any more. Load this page again.");
    const type = answer.headers.get("Content-Type") || "";
    const body = type.startsWith("application/json") ? await answer.json() : null;
    if (body && body.status === "success") return body.data;
    if (body && body.error) throw new Error(`Prometheus refuses a query: ${body.error}`);
    throw new Unanswered(
      answer.status === 429
        ? "The site limits the requests of your address (nginx_requests_per_second)."
        : `Prometheus does not answer (HTTP ${answer.status}). On your machine, make logs UNIT=prometheus prints why.`,
    );
  }

  /** Replace what stands for the chosen time. */
  const filled = (expr) => expr.replaceAll("$window", `${STEPS[state.hours][1]}s`).replaceAll("$range", `${state.hours}h`);
  const number = (value) => {
    const read = Number(value);
    return Number.isFinite(read) ? read : null;
  };

  /** The samples of an expression now: their labels and values, without those that are no number. */
  async function now(expr) {
    const { result } = await ask("query", { query: filled(expr), time: state.end });
    return result.map(({ metric, value }) => ({ labels: metric, value: number(value[1]) })).filter(({ value }) => value !== null);
  }

  /** The series of an expression: their labels, and a value or null for each time of the chart. */
  async function series(expr) {
    const { start, end, step } = state;
    const { result } = await ask("query_range", { query: filled(expr), start, end, step });
    return result.map(({ metric, values }) => {
      const found = new Array(Math.round((end - start) / step) + 1).fill(null);
      for (const [time, value] of values) found[Math.round((time - start) / step)] = number(value);
      return { labels: metric, values: found };
    });
  }

  // Alerts

  const ORDER = { critical: 0, warning: 1 };

  async function showAlerts() {
    const { alerts } = await ask("alerts", {});
    const watched = alerts.some(({ labels }) => labels.alertname === "Watchdog");
    const active = alerts
      .filter(({ labels }) => labels.alertname !== "Watchdog")
      .map(({ labels, annotations, state: phase, activeAt }) => ({
        name: labels.alertname, severity: labels.severity, firing: phase === "firing", since: Date.parse(activeAt) / 1000,
        summary: annotations.summary || "", runbook: annotations.runbook_url || "",
      }))
      .sort((a, b) => b.firing - a.firing || (ORDER[a.severity] ?? 2) - (ORDER[b.severity] ?? 2) || a.since - b.since);
    const firing = active.filter((alert) => alert.firing).length;
    const line = by("alerts-state");
    line.className = firing ? "bad" : watched ? "good" : "";
    let said = firing ? `${firing} ${firing === 1 ? "alert fires" : "alerts fire"}.` : "No alert fires.";
    if (!watched) said = firing ? said : "Prometheus has not evaluated its rules yet.";
    if (line.textContent !== said) line.textContent = said;
    document.title = `${firing ? `(${firing}) ` : ""}Status of ${location.host}`;
    by("alerts").replaceChildren(
      ...active.map((alert) =>
        element(
          "li", {},
          badge(alert.firing ? alert.severity : "pending"),
          element("strong", {}, alert.name),
          element("span", {}, alert.summary),
          element("span", { class: "note" }, `since ${moment(alert.since)}`),
          /^https?:\/\//.test(alert.runbook) ? element("a", { href: alert.runbook, rel: "noreferrer" }, "runbook") : element("code", {}, alert.runbook),
        ),
      ),
    );
  }

  const badge = (kind) => element("span", { class: `badge ${kind}` }, kind);

  // Numbers, dead letters and tables

  async function showNumbers() {
    const values = await Promise.all(panels.numbers.map(({ expr }) => now(expr)));
    by("numbers").replaceChildren(
      ...panels.numbers.map(({ title, unit, bad }, index) => {
        const value = values[index].length ? values[index][0].value : null;
        const wrong = bad !== undefined && value !== null && value >= bad;
        return element("div", { class: wrong ? "bad" : null }, element("dt", {}, filled(title).replace("h", " h")), element("dd", {}, text(unit, value)));
      }),
    );
  }

  /** Make a table that can be scrolled sideways, also by keyboard. */
  function table(title, headings, rows, numeric) {
    const cell = (content, index, tag) =>
      element(tag, { scope: tag === "th" ? "row" : null, class: numeric.has(index) ? "number" : null }, content);
    return element(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, table` },
      element(
        "table",
        {},
        element("thead", {}, element("tr", {}, ...headings.map((each, index) => element("th", { scope: "col", class: numeric.has(index) ? "number" : null }, each)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((content, index) => cell(content, index, index ? "td" : "th"))))),
      ),
    );
  }

  async function showTable(panel, place) {
    const columns = await Promise.all(panel.columns.map(({ expr }) => now(expr)));
    const found = columns.map((samples) => {
      const values = new Map();
      for (const sample of samples) values.set(sample.labels[panel.key], sample);
      return values;
    });
    let keys = [...found[0].keys()].sort();
    if (panel.most_first) keys.sort((a, b) => found[0].get(b).value - found[0].get(a).value);
    const left = keys.length - ROWS;
    keys = keys.slice(0, ROWS);
    const rows = keys.map((key) => [
      key || "(no name)",
      ...panel.columns.map(({ unit, show, bad, missing }, index) => {
        const sample = found[index].get(key);
        if (show) return sample ? element("code", {}, sample.labels[show]) : "–";
        const value = sample ? sample.value : missing;
        const wrong = (bad !== undefined && value >= bad) || (unit === "yes" && value === 0);
        return wrong ? element("strong", { class: "bad" }, text(unit, value)) : text(unit, value);
      }),
    ]);
    const numeric = new Set(panel.columns.map(({ show }, index) => (show ? -1 : index + 1)));
    const headings = [panel.heading, ...panel.columns.map(({ title }) => title)];
    keepFocus(place, () =>
      place.replaceChildren(
        rows.length ? table(panel.title, headings, rows, numeric) : element("p", { class: "empty" }, absent(panel)),
        left > 0 ? element("p", { class: "note" }, `${left} more are not shown.`) : "",
      ),
    );
  }

  /** Change a part of the page; what had the keyboard's focus has it again. */
  function keepFocus(place, change) {
    const list = () => [...place.querySelectorAll("button, a, [tabindex]")];
    const index = list().indexOf(document.activeElement);
    change();
    if (index >= 0 && list()[index]) list()[index].focus({ preventScroll: true });
  }

  async function showDead() {
    const queues = await now(panels.dead);
    const dead = queues.filter(({ value }) => value > 0).sort((a, b) => a.labels.queue.localeCompare(b.labels.queue));
    const place = by("dead");
    keepFocus(place, () =>
      place.replaceChildren(
        ...(dead.length
          ? [
              element(
                "p",
                {},
                "No release had these tasks when they came. When the current one has them, run this on the machine from which you deploy, with your ",
                element("code", {}, "ENV="), ". It asks before it sends the messages again.",
              ),
              element("ul", { class: "commands" }, ...dead.map(({ labels, value }) => deadQueue(labels.queue, value))),
            ]
          : [element("p", { class: "empty" }, queues.length ? "No queue has dead letters." : "The broker was not read yet.")]),
      ),
    );
  }

  function deadQueue(queue, count) {
    const safe = /^[\w.@-]+$/.test(queue) ? queue : `'${queue.replaceAll("'", "'\\''")}'`;
    const command = `make queues RETRY=${safe}`;
    const button = element("button", { type: "button", "aria-label": `Copy the command for the queue ${queue}` }, "Copy");
    button.addEventListener("click", () => copy(command, button));
    return element("li", {}, element("strong", {}, queue), ` ${digits(count, 0)} `, element("code", {}, command), button);
  }

  async function copy(command, button) {
    let done = "Copied";
    try {
      await navigator.clipboard.writeText(command);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.previousElementSibling);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      done = "Selected";
    }
    button.textContent = done;
    by("spoken").textContent = `${done}: ${command}`;
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }

  // Charts

  const labelled = ({ label, name }, { labels }) => (name ? name : labels[label] || "(no name)");
  const mean = (values) => {
    const found = values.filter((value) => value !== null);
    return found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null;
  };
  const most = (values) => values.reduce((greatest, value) => (value !== null && (greatest === null || value > greatest) ? value : greatest), null);
  const last = (values) => values.findLast((value) => value !== null) ?? null;

  /** The lines of a chart, the largest first; percentiles remain in their order. */
  async function lines(panel) {
    const answers = await Promise.all(panel.queries.map(({ expr }) => series(expr)));
    let found = answers.flatMap((each, index) => each.map((one) => ({ name: labelled(panel.queries[index], one), values: one.values })));
    found = found.filter(({ values }) => values.some((value) => value !== null && !(panel.without_zeros && value === 0)));
    if (panel.queries.length === 1) found.sort((a, b) => mean(b.values) - mean(a.values) || a.name.localeCompare(b.name));
    if (found.length <= SERIES) return { found, left: 0 };
    const others = found.slice(SERIES - 1);
    if (!panel.sum_others) return { found: found.slice(0, SERIES), left: found.length - SERIES };
    const sum = others[0].values.map((_, index) => {
      const values = others.map(({ values: each }) => each[index]).filter((value) => value !== null);
      return values.length ? values.reduce((total, value) => total + value, 0) : null;
    });
    return { found: [...found.slice(0, SERIES - 1), { name: `${others.length} others`, values: sum }], left: 0 };
  }

  async function showChart(panel) {
    const chart = state.charts[panel.id];
    const { found, left } = await lines(panel);
    chart.lines = found;
    chart.message.textContent = found.length ? (left ? `${left} more are not shown.` : "") : absent(panel);
    chart.message.className = found.length ? "note" : "empty";
    chart.plot.hidden = chart.table.hidden = !found.length;
    const times = found.length ? found[0].values.map((_, index) => state.start + index * state.step) : [];
    const names = found.map(({ name }) => name).join("\n");
    const data = [times, ...found.map(({ values }) => values)];
    if (!found.length) {
      if (chart.u) chart.u.destroy();
      chart.u = null;
      return;
    }
    if (chart.u && chart.names === names) chart.u.setData(data);
    else {
      chart.names = names;
      draw(panel, chart, data);
    }
    legend(panel, chart);
  }

  /** What a panel says if it has nothing to show. */
  const absent = (panel) => (panel.needs && !state[panel.needs] ? "Flower counts tasks, and it was not read yet, or no host is in the group flower." : panel.empty);

  const stroke = (index) => colour(`--line-${(index % SERIES) + 1}`);

  function draw(panel, chart, data) {
    if (chart.u) chart.u.destroy();
    const scale = panel.logarithmic
      ? { distr: 3, range: (_, least, greatest) => uPlot.rangeLog(least || 0.001, greatest || 1, 10, true) }
      : { range: (_, __, greatest) => [0, panel.unit === "ratio" ? 1 : (greatest || 1) * 1.08] };
    const distances = panel.logarithmic
      ? { splits: (_, __, least, greatest) => POWERS.filter((value) => value >= least && value <= greatest), filter: (_, values) => values }
      : { incrs: STEPS_OF[panel.unit] };
    const axis = { stroke: colour("--soft"), font: "12px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colour("--rule"), width: 1 } };
    chart.u = new uPlot(
      {
        width: Math.max(200, chart.plot.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        padding: [10, 20, 0, 0],
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "time" }, points: { size: 6 } },
        scales: { x: { range: () => [state.start, state.end] }, y: scale },
        axes: [
          { ...axis, size: 28, space: 60, values: (_, times) => times.map(hour) },
          { ...axis, size: 62, space: 34, ...distances, values: (_, values) => values.map((value) => text(panel.unit, value)) },
        ],
        series: [{}, ...data.slice(1).map((_, index) => ({ stroke: stroke(index), width: 2, dash: DASHES[index % DASHES.length], points: { size: 4 } }))],
        hooks: { setCursor: [() => legend(panel, chart)], drawAxes: [mark] },
      },
      data,
      chart.plot,
    );
    chart.u.root.setAttribute("aria-hidden", "true");
  }

  /** Draw a line where a release started. */
  function mark(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour("--soft");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const time of state.starts) {
      const x = Math.round(u.valToPos(time, "x", true));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  /** Write the table below a chart: the values at the cursor, else the last ones; the mean and the greatest of the time. */
  function legend(panel, chart) {
    const index = chart.u ? chart.u.cursor.idx : null;
    const at = index !== null && index !== undefined && chart.lines.length && index < chart.lines[0].values.length;
    const value = ({ values }) => text(panel.unit, at ? values[index] : last(values));
    const heading = at ? `at ${hour(state.start + index * state.step)}` : "Last";
    const rows = chart.lines.map((line, number_) =>
      element(
        "tr", {},
        element("th", { scope: "row" }, swatch(number_), line.name),
        element("td", { class: "number" }, value(line)),
        element("td", { class: "number" }, text(panel.unit, mean(line.values))),
        element("td", { class: "number" }, text(panel.unit, most(line.values))),
      ),
    );
    const heads = [["Series", null], [heading, "number"], ["Mean", "number"], ["Most", "number"]];
    chart.table.replaceChildren(
      element("caption", { class: "hidden" }, `${panel.title}: the figures`),
      element("thead", {}, element("tr", {}, ...heads.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
      element("tbody", {}, ...rows),
    );
    chart.spoken = at ? `${heading}: ${chart.lines.map((line) => `${line.name} ${value(line)}`).join(", ")}` : "";
  }

  function swatch(index) {
    const make = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      return made;
    };
    const svg = make("svg", { width: 22, height: 8, viewBox: "0 0 22 8", "aria-hidden": "true" });
    svg.append(
      make("line", { x1: 0, x2: 22, y1: 4, y2: 4, stroke: `var(--line-${(index % SERIES) + 1})`, "stroke-width": 3, "stroke-dasharray": DASHES[index % DASHES.length].join(" ") || "none" }),
    );
    return svg;
  }

  /** Let the arrow keys move the cursor of all charts, and Escape take it away. */
  function keys(event, chart) {
    if (!chart.u || !["ArrowLeft", "ArrowRight", "Home", "End", "Escape"].includes(event.key)) return;
    event.preventDefault();
    const count = chart.u.data[0].length;
    if (event.key === "Escape") {
      chart.u.setCursor({ left: -10, top: -10 }, true, true);
      return;
    }
    const here = chart.u.cursor.idx ?? count - 1;
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: count - 1 }[event.key];
    const index = Math.min(count - 1, Math.max(0, to));
    chart.u.setCursor({ left: chart.u.valToPos(chart.u.data[0][index], "x"), top: 10 }, true, true);
    by("spoken").textContent = chart.spoken;
  }

  function build() {
    for (const panel of panels.charts) {
      const plot = element("div", {
        class: "plot", tabindex: "0", role: "group", "aria-roledescription": "chart", hidden: true,
        "aria-label": `${panel.title}, chart. The left and right arrow keys read its values; the table below has its figures.`,
      });
      const chart = { plot, table: element("table", { hidden: true }), message: element("p", { class: "empty" }, "Asking Prometheus"), lines: [], u: null };
      state.charts[panel.id] = chart;
      plot.addEventListener("keydown", (event) => keys(event, chart));
      new ResizeObserver(() => chart.u && plot.clientWidth && chart.u.width !== plot.clientWidth && chart.u.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(plot);
      by("charts").append(
        element(
          "figure", { id: panel.id, "aria-labelledby": `${panel.id}-title` },
          element("figcaption", {}, element("h3", { id: `${panel.id}-title` }, panel.title), element("p", {}, panel.text)),
          plot, chart.message, chart.table,
        ),
      );
    }
    for (const panel of panels.tables) {
      by("tables").append(
        element(
          "section", { id: panel.id, "aria-labelledby": `${panel.id}-title` },
          element("h2", { id: `${panel.id}-title` }, panel.title), panel.text ? element("p", { class: "note" }, panel.text) : null, element("div", {}),
        ),
      );
    }
    by("tables").append(
      element("section", { id: "releases", "aria-labelledby": "releases-title" }, element("h2", { id: "releases-title" }, "Releases in the chosen time"), element("div", {})),
    );
  }

  async function showReleases() {
    const found = (await series(panels.releases)).map(({ labels, values }) => {
      const seen = values.flatMap((value, index) => (value === null ? [] : [index]));
      return { release: labels.release, first: seen[0], end: seen.at(-1), hosts: last(values) };
    });
    const count = Math.round((state.end - state.start) / state.step);
    found.sort((a, b) => b.first - a.first);
    // With which release the figures begin is no start of one.
    const earliest = Math.min(...found.map(({ first }) => first));
    state.starts = found.filter(({ first }) => first > earliest).map(({ first }) => state.start + first * state.step);
    const time = (index, edge, words) => (index === edge ? words : moment(state.start + index * state.step));
    const rows = found.map(({ release, first, end, hosts }) => [element("code", {}, release), time(first, 0, "before"), time(end, count, "now"), digits(hosts, 0)]);
    by("releases").lastChild.replaceChildren(
      rows.length ? table("Releases", ["Release", "From", "Until", "Hosts"], rows, new Set([3])) : element("p", { class: "empty" }, "No host was read yet."),
    );
  }

  // The page as a whole

  function choose() {
    const chosen = document.querySelector("input[name=range]:checked");
    state.hours = Number(chosen.value);
    history.replaceState(null, "", `#${chosen.value}h`);
  }

  function message(error) {
    const place = by("message");
    const said = error ? [error.message, state.good ? `The figures below are those of ${clock(state.good, { timeStyle: "medium" })}.` : ""].join(" ").trim() : "";
    if (place.textContent !== said) place.textContent = said;
    place.hidden = !error;
    document.body.classList.toggle("stale", Boolean(error && state.good));
  }

  /** Ask for everything. A run for another time ends the one before. */
  async function refresh() {
    const run = (state.running = Symbol());
    state.busy = true;
    const [step] = STEPS[state.hours];
    state.step = step;
    state.end = Math.floor(Date.now() / 1000 / step) * step;
    state.start = state.end - state.hours * 3600;
    const all = [showAlerts, showNumbers, showDead, ...panels.charts.map((panel) => () => showChart(panel)), ...panels.tables.map((panel) => () => showTable(panel, by(panel.id).lastChild))];
    try {
      state.flower = (await now(panels.flower)).length > 0;
      await showReleases();
      const ended = await Promise.allSettled(all.map((show) => show()));
      if (run !== state.running) return;
      const failed = ended.find(({ status }) => status === "rejected");
      if (failed) throw failed.reason;
      state.good = Date.now() / 1000;
      by("updated").textContent = `Read at ${clock(state.good, { timeStyle: "medium" })}`;
      message(null);
    } catch (error) {
      if (run !== state.running) return;
      if (!(error instanceof Unanswered)) console.error(error);
      if (!state.good) for (const { message: place, u } of Object.values(state.charts)) if (!u) place.textContent = "";
      if (!state.good) by("updated").textContent = "";
      message(error);
    } finally {
      if (run === state.running) state.busy = false;
    }
  }

  /** Ask again where the figures are seen and nothing is asked already. */
  function again() {
    if (document.visibilityState === "visible" && !state.busy) refresh();
  }

  async function begin() {
    by("site").textContent = `of ${location.host}`;
    by("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
    document.title = `Status of ${location.host}`;
    const wanted = document.querySelector(`input[name=range][value="${location.hash.slice(1, -1).replace(/\D/g, "")}"]`);
    if (wanted) wanted.checked = true;
    const answer = await fetch("panels.json");
    panels = await answer.json();
    build();
    choose();
    by("ranges").addEventListener("change", () => {
      choose();
      refresh();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const panel of panels.charts) {
        const chart = state.charts[panel.id];
        if (chart.u) draw(panel, chart, chart.u.data);
      }
    });
    setInterval(again, REFRESH * 1000);
    document.addEventListener("visibilitychange", () => Date.now() / 1000 - state.good > REFRESH && again());
    await refresh();
  }

  begin().catch((error) => {
    console.error(error);
    by("message").textContent = `This page could not be built: ${error.message}`;
    by("message").hidden = false;
  });
})();
