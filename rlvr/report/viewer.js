"use strict";
// The rollout viewer: columns in memory, a virtual list of rows, texts decompressed when first shown.
(async () => {
  const $ = (id) => document.getElementById(id);
  const viewer = $("viewer");
  viewer.hidden = false;
  if (typeof DecompressionStream === "undefined") {
    viewer.textContent = "The viewer needs a browser of 2023 or later (DecompressionStream).";
    return;
  }
  const unpack = (base64) => {
    const raw = atob(base64);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };
  const data = await unpack($("rollout-index").textContent);
  const { names, numbers, texts, cases, vocabulary, chunks, size } = data;

  // --- texts ---
  const loaded = new Map();
  const chunk = (number) => {
    if (!loaded.has(number)) loaded.set(number, unpack($("rollout-text-" + number).textContent));
    return loaded.get(number);
  };
  const text = async (id) => {
    if (id < 0) return "";
    let number = chunks.length - 1;
    while (chunks[number] > id) number--;
    return (await chunk(number))[id - chunks[number]];
  };
  const textsWith = async (needle) => {
    const found = new Set();
    for (let number = 0; number < chunks.length; number++) {
      (await chunk(number)).forEach((t, i) => { if (t.toLowerCase().includes(needle)) found.add(chunks[number] + i); });
    }
    return found;
  };

  // --- filters ---
  const form = $("filters");
  const word = (column, i) => vocabulary[column][names[column][i]];
  const option = (select, value) => select.append(new Option(value || "unknown", value));
  const natural = (a, b) => a.localeCompare(b, undefined, { numeric: true });
  vocabulary.stage.forEach((stage) => option(form.elements.stage, stage));
  [...vocabulary.difficulty].sort(natural).forEach((level) => option(form.elements.difficulty, level));
  const chip = (verdict, many) => {
    const element = document.createElement("span");
    element.className = "verdict";
    element.style.setProperty("--v", `var(--v-${verdict}, var(--v-other))`);
    element.textContent = verdict || "?";
    if (many !== undefined) {
      const count = document.createElement("span");
      count.className = "many";
      count.textContent = many.toLocaleString("en");
      element.append(count);
    }
    return element;
  };
  const counts = new Array(vocabulary.verdict.length).fill(0);
  names.verdict.forEach((v) => counts[v]++);
  vocabulary.verdict.map((verdict, v) => [verdict, v]).sort((a, b) => counts[b[1]] - counts[a[1]]).forEach(([verdict, v]) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox"; box.name = "verdict"; box.value = v;
    label.append(box, chip(verdict, counts[v]));
    $("verdicts").append(label);
  });

  let shown = [];
  let sort = { column: "order", down: false };
  let chosen = -1;
  let group = null; // [step, stage, group] of the group being looked at
  let run = 0;

  const apply = async () => {
    const mine = ++run;
    const f = form.elements;
    const problem = f.problem.value.trim().toLowerCase();
    const stage = f.stage.value === "" ? -1 : vocabulary.stage.indexOf(f.stage.value);
    const level = f.difficulty.selectedIndex === 0 ? -1 : vocabulary.difficulty.indexOf(f.difficulty.value);
    const from = f.from.value === "" ? -Infinity : +f.from.value;
    const to = f.to.value === "" ? Infinity : +f.to.value;
    const verdicts = new Set([...form.querySelectorAll("input[name=verdict]:checked")].map((box) => +box.value));
    const problems = vocabulary.problem_id.map((id) => !problem || id.toLowerCase().includes(problem));
    const needle = f.text.value.trim().toLowerCase();
    const hits = needle ? await textsWith(needle) : null;
    if (mine !== run) return; // a newer filter overtook this one
    const reward = {
      "": () => true, full: (r) => r !== null && r >= 1, part: (r) => r !== null && r > 0 && r < 1,
      zero: (r) => r !== null && r <= 0, none: (r) => r === null,
    }[f.reward.value];
    shown = [];
    for (let i = 0; i < size; i++) {
      if (group ? numbers.step[i] !== group[0] || names.stage[i] !== group[1] || numbers.group[i] !== group[2] :
          (stage >= 0 && names.stage[i] !== stage) || (level >= 0 && names.difficulty[i] !== level) ||
          numbers.step[i] < from || numbers.step[i] > to || (verdicts.size && !verdicts.has(names.verdict[i])) ||
          !problems[names.problem_id[i]] || !reward(numbers.reward[i]) ||
          (hits && !hits.has(texts.program[i]) && !hits.has(texts.completion[i]))) continue;
      shown.push(i);
    }
    order();
    $("rows").scrollTop = 0;
    draw();
    const passed = shown.reduce((sum, i) => sum + (word("verdict", i) === "AC"), 0);
    const share = shown.length ? `, ${(100 * passed / shown.length).toFixed(1)}% accepted` : "";
    const what = group ? `Group ${group[2]} of step ${group[0]}: ` : "";
    $("count").textContent = `${what}${shown.length.toLocaleString("en")} of ${size.toLocaleString("en")} rollouts${share}`;
    if (group) {
      const back = document.createElement("button");
      back.type = "button"; back.textContent = "back to the filtered list";
      back.onclick = async () => { group = null; await apply(); reveal(); };
      $("count").append(back);
    }
  };

  // --- list ---
  const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const COLUMNS = [
    ["stage", "Stage", "", (i) => word("stage", i)],
    ["step", "Step", "r", (i) => numbers.step[i]],
    ["problem_id", "Problem", "", (i) => word("problem_id", i)],
    ["difficulty", "Level", "", (i) => word("difficulty", i)],
    ["verdict", "Verdict", "", (i) => word("verdict", i)],
    ["reward", "Reward", "r", (i) => numbers.reward[i], 2],
    ["advantage", "Advant.", "r", (i) => numbers.advantage[i], 2],
    ["passed", "Tests", "r", (i) => numbers.passed[i]],
    ["completion_tokens", "Tokens", "r", (i) => numbers.completion_tokens[i]],
    ["n_allocated", "Alloc.", "r", (i) => numbers.n_allocated[i]],
  ];
  const order = () => {
    const column = COLUMNS.find(([key]) => key === sort.column);
    if (!column) { if (sort.down) shown.reverse(); return; }
    const value = column[3];
    const sign = sort.down ? -1 : 1;
    const keys = new Map(shown.map((i) => [i, value(i)]));
    shown.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // unknown last
      return sign * (typeof x === "string" ? natural(x, y) : x - y) || a - b;
    });
  };
  const header = () => {
    $("columns").replaceChildren(...COLUMNS.map(([key, title, side]) => {
      const cell = document.createElement("span");
      cell.className = side;
      const button = document.createElement("button");
      button.type = "button";
      const active = sort.column === key;
      button.textContent = title + (active ? (sort.down ? " ↓" : " ↑") : "");
      button.className = active ? "sorted" : "";
      button.title = "Sort by " + key.replaceAll("_", " ");
      button.onclick = () => { // up, down, back to the order of sampling
        sort = !active ? { column: key, down: side === "r" } : sort.down === (side === "r") ? { column: key, down: !sort.down } : { column: "order", down: false };
        header();
        apply();
      };
      cell.append(button);
      return cell;
    }));
  };
  const HEIGHT = 28;
  const rows = $("rows");
  const draw = () => {
    $("columns").style.paddingRight = `calc(.6rem + ${rows.offsetWidth - rows.clientWidth}px)`; // the scroll bar's width
    $("spacer").style.height = shown.length * HEIGHT + "px";
    const first = Math.max(0, Math.floor(rows.scrollTop / HEIGHT) - 8);
    const last = Math.min(shown.length, Math.ceil((rows.scrollTop + rows.clientHeight) / HEIGHT) + 8);
    const lines = [];
    for (let place = first; place < last; place++) {
      const i = shown[place];
      const line = document.createElement("div");
      line.className = "line";
      line.style.top = place * HEIGHT + "px";
      line.setAttribute("role", "option");
      line.setAttribute("aria-selected", i === chosen);
      line.dataset.i = i;
      for (const [key, , side, value, digits] of COLUMNS) {
        const cell = document.createElement("span");
        cell.className = side;
        if (key === "verdict") cell.append(chip(value(i)));
        else if (key === "passed") cell.textContent = `${numbers.passed[i] ?? "–"}/${numbers.tests[i] ?? "–"}`;
        else { const v = value(i); cell.textContent = digits ? fixed(v, digits) : v ?? "–"; }
        if (key === "problem_id") cell.title = value(i);
        line.append(cell);
      }
      lines.push(line);
    }
    rows.replaceChildren($("spacer"), ...lines);
  };
  rows.addEventListener("scroll", draw, { passive: true }); // fired once a frame
  rows.addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    if (line) choose(+line.dataset.i);
  });
  rows.addEventListener("keydown", (event) => {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || !shown.length) return;
    event.preventDefault();
    const place = Math.min(shown.length - 1, Math.max(0, shown.indexOf(chosen) + moves[event.key]));
    choose(shown[place]);
    reveal();
  });
  const reveal = () => {
    const place = shown.indexOf(chosen);
    if (place < 0) return;
    const top = place * HEIGHT;
    if (top < rows.scrollTop) rows.scrollTop = top;
    if (top + HEIGHT > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + HEIGHT - rows.clientHeight;
    draw();
  };

  // --- detail ---
  const block = (title, content) => {
    const heading = document.createElement("h4");
    heading.textContent = title;
    const pre = document.createElement("pre");
    pre.textContent = content;
    return [heading, pre];
  };
  const choose = async (i) => {
    chosen = i;
    draw();
    const [prompt, program, other] = await Promise.all([text(texts.prompt[i]), text(texts.program[i]), text(texts.completion[i])]);
    if (chosen !== i) return;
    const parts = [];
    const title = document.createElement("h3");
    title.append(chip(word("verdict", i)), " " + word("problem_id", i));
    parts.push(title);
    const message = word("message", i);
    if (message) {
      const line = document.createElement("p");
      line.className = "facts";
      line.textContent = message;
      parts.push(line);
    }
    const tests = vocabulary.cases[cases[i]].split(",").filter(Boolean);
    if (tests.length) {
      const strip = document.createElement("div");
      strip.className = "cases";
      tests.forEach((verdict, place) => {
        const mark = document.createElement("i");
        mark.style.setProperty("--v", `var(--v-${verdict}, var(--v-other))`);
        mark.title = `test ${place + 1}: ${verdict}`;
        strip.append(mark);
      });
      parts.push(strip);
    }
    const facts = document.createElement("dl");
    const rate = numbers.success_rate[i];
    const mates = [];
    for (let j = 0; j < size; j++) {
      if (numbers.step[j] === numbers.step[i] && names.stage[j] === names.stage[i] && numbers.group[j] === numbers.group[i]) mates.push(j);
    }
    const solved = mates.filter((j) => word("verdict", j) === "AC").length;
    for (const [name, value] of [
      ["Stage, step", `${word("stage", i)}, ${numbers.step[i]}`],
      ["Difficulty", word("difficulty", i) || "unknown"],
      ["Tests passed", `${numbers.passed[i] ?? "–"} of ${numbers.tests[i] ?? "–"}`],
      ["Reward", fixed(numbers.reward[i], 2)],
      ["Advantage", fixed(numbers.advantage[i], 3)],
      ["Tokens", `${numbers.completion_tokens[i] ?? "–"}${word("finish_reason", i) === "length" ? " (cut off)" : ""}`],
      ["Allocated", `${numbers.n_allocated[i] ?? "–"} rollouts`],
      ["Estimate before", rate === null ? "unseen" : (100 * rate).toFixed(1) + "%"],
      ["Group", `${solved} of ${mates.length} accepted`],
    ]) {
      const box = document.createElement("div");
      const term = document.createElement("dt");
      const definition = document.createElement("dd");
      term.textContent = name;
      definition.textContent = value;
      box.append(term, definition);
      facts.append(box);
    }
    parts.push(facts);
    const siblings = document.createElement("button");
    siblings.type = "button";
    siblings.textContent = `Show the ${mates.length} rollouts of this group`;
    siblings.onclick = async () => { group = [numbers.step[i], names.stage[i], numbers.group[i]]; await apply(); reveal(); };
    const same = document.createElement("button");
    same.type = "button";
    same.textContent = "Show this problem over time";
    same.style.marginLeft = ".4rem";
    same.onclick = async () => { form.reset(); group = null; form.elements.problem.value = word("problem_id", i); await apply(); reveal(); };
    parts.push(siblings, same);
    if (program) parts.push(...block("Program", program));
    if (other) parts.push(...block(program ? "Completion it was taken from" : "Completion", other));
    if (prompt) parts.push(...block("Prompt", prompt));
    $("detail").replaceChildren(...parts);
    $("detail").scrollTop = 0;
  };

  let typing;
  form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => { group = null; apply(); }, 120); });
  form.addEventListener("reset", () => setTimeout(() => { group = null; apply(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.querySelectorAll("button.open").forEach((button) => button.addEventListener("click", async () => {
    form.reset();
    group = null;
    chosen = +button.dataset.rollout;
    await apply();
    await choose(chosen);
    $("rollouts").scrollIntoView();
    reveal();
  }));
  window.addEventListener("resize", draw);
  header();
  await apply();
  if (shown.length) choose(shown[0]);
  viewer.dataset.ready = "true";
})();
