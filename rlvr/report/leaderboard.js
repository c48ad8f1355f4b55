"use strict";
// The matrix of models and problems; samples are unpacked when a cell is first pressed.
(() => {
  const unpack = (id) => {
    const raw = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(raw, (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const texts = new Map();
  const samplesOf = async (number, column, problem) => {
    const id = `texts-${number}-${column}`;
    if (!texts.has(id)) texts.set(id, unpack(id));
    return (await texts.get(id))[problem] || [];
  };

  const show = async (number, data, row, column) => {
    const panel = document.querySelector(`[data-samples="${number}"]`);
    const [problem, difficulty] = data.problems[row];
    const samples = await samplesOf(number, column, problem);
    panel.replaceChildren(element("h3", `${problem}${difficulty ? ` (${difficulty})` : ""}: ${data.labels[column]}`));
    panel.hidden = false;
    if (!samples.length) panel.append(element("p", "No samples.jsonl beside these results.", { class: "caption" }));
    const prompt = samples.find((sample) => sample.prompt);
    if (prompt) {
      const folded = element("details");
      folded.append(element("summary", "prompt"), element("pre", prompt.prompt));
      panel.append(folded);
    }
    for (const sample of samples) {
      const folded = element("details");
      const line = element("summary");
      const verdict = element("span", sample.verdict, { class: "verdict", style: `background: var(--v-${sample.verdict}, var(--v-other))` });
      const name = sample.greedy ? "greedy" : `sample ${sample.sample}`;
      const cut = sample.finish === "length" ? ", cut at the limit" : "";
      line.append(verdict, ` ${name}: ${sample.passed}/${sample.tests} tests, ${sample.tokens} tokens${cut}`);
      folded.append(line);
      if (sample.message) folded.append(element("pre", sample.message));
      folded.append(element("h4", "program"), element("pre", sample.program || "(none)"));
      if (sample.completion && sample.completion !== sample.program) {
        folded.append(element("h4", "completion"), element("pre", sample.completion));
      }
      panel.append(folded);
    }
    panel.scrollIntoView({ block: "nearest" });
  };

  const draw = (number, data) => {
    const box = document.querySelector(`[data-matrix="${number}"]`);
    const needle = document.querySelector(`[data-filter="${number}"]`).value.trim().toLowerCase();
    const differ = document.querySelector(`[data-differ="${number}"]`).checked;
    const table = element("table");
    const head = element("tr");
    head.append(element("th"));
    for (const label of data.labels) head.append(element("th", label, { title: label }));
    const header = element("thead");
    header.append(head);
    const body = element("tbody");
    let shown = 0;
    data.problems.forEach(([problem, difficulty], row) => {
      const shares = data.shares[row];
      const known = shares.filter((share) => share !== null);
      if (needle && !`${problem} ${difficulty}`.toLowerCase().includes(needle)) return;
      if (differ && new Set(known).size < 2) return;
      shown += 1;
      const line = element("tr");
      const name = element("th", `${problem} `, { class: "problem", title: problem });
      name.append(element("span", difficulty, { class: "n" }));
      line.append(name);
      shares.forEach((share, column) => {
        const cell = element("td");
        const label = share === null ? "–" : `${Math.round(100 * share)}`;
        const button = element("button", label, { title: `${problem}, ${data.labels[column]}: ${label}%`, type: "button" });
        if (share !== null) {
          button.dataset.share = share;
          button.style.setProperty("--share", share);
        }
        button.addEventListener("click", () => {
          box.querySelectorAll('[aria-pressed="true"]').forEach((other) => other.removeAttribute("aria-pressed"));
          button.setAttribute("aria-pressed", "true");
          show(number, data, row, column);
        });
        cell.append(button);
        line.append(cell);
      });
      body.append(line);
    });
    table.append(header, body);
    box.replaceChildren(table);
    document.querySelector(`[data-count="${number}"]`).textContent = `${shown} of ${data.problems.length} problems`;
  };

  document.querySelectorAll("[data-matrix]").forEach(async (box) => {
    const number = box.dataset.matrix;
    const data = await unpack(`matrix-${number}`);
    draw(number, data);
    document.querySelector(`[data-filter="${number}"]`).addEventListener("input", () => draw(number, data));
    document.querySelector(`[data-differ="${number}"]`).addEventListener("change", () => draw(number, data));
    document.body.dataset.ready = String(Number(document.body.dataset.ready || 0) + 1);
  });
})();
