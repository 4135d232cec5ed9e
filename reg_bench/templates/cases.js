// Cases: what a number is made of, each with its picture, its values and the command that computes it again.
// An address of the form #cases/TASK/METHOD/VALUE or #case/TASK/METHOD/CASE leads there.
const dialog = document.getElementById("cases");
const tasks = new Map();
const taskOf = (id) => {
  // Data of a task is read when it is first asked for: a page with many cases opens at once.
  if (!tasks.has(id)) {
    const element = document.getElementById(`data-${id}`);
    tasks.set(id, element ? JSON.parse(element.textContent) : null);
  }
  return tasks.get(id);
};
const STATUS = ["missing", "ok", "failed", "skipped"];
const el = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const unpack = (task, pack, label, m) => {
  const text = pack.data[label]?.[m];
  if (!text) return null;
  const at = (i) => task.alphabet.indexOf(text[i]);
  return (c) => (text[3 * c] === "~" ? null : pack.low + pack.step * ((at(3 * c) << 12) + (at(3 * c + 1) << 6) + at(3 * c + 2)));
};
const valueOf = (task, source, m) => {
  const [, rival, own] = source.match(/^less:(\d+):(.*)$/s) ?? [];
  if (own !== undefined) {
    const [a, b] = [valueOf(task, own, m), valueOf(task, own, Number(rival))];
    return (c) => (a(c) === null || b(c) === null ? null : a(c) - b(c));
  }
  const [key, label] = source.split(/#(.*)/s);
  if (label !== undefined) {
    const pack = task.labels[key];
    return (pack && unpack(task, pack, label, m)) ?? valueOf(task, key, m);
  }
  const list = task.values[key]?.[m];
  return (c) => (list ? list[c] : null);
};
const metricOf = (task, source) => {
  const [, rival, own] = source.match(/^less:(\d+):(.*)$/s) ?? [];
  if (own !== undefined) {
    const metric = metricOf(task, own);
    return { ...metric, title: `${metric.title} less that of ${task.methods[rival].name}` };
  }
  const [key, label] = source.split(/#(.*)/s);
  const metric = task.metrics.find((item) => item.key === key) ?? { key, title: key, unit: "", better: "neutral", decimals: null };
  return label === undefined ? metric : { ...metric, title: `${metric.title} of label ${label}` };
};
const written = (metric, value) => {
  if (value === null || value === undefined) return "–";
  if (metric.key.endsWith("/nonpositive_fraction")) return `${+(100 * value).toPrecision(3)} %`;
  return metric.decimals === null || Math.abs(value) >= 1000 ? `${+value.toPrecision(4)}` : value.toFixed(metric.decimals);
};
const titled = (task, metric) => `${metric.title}${metric.unit ? ` [${metric.unit}]` : ""}${metric.key.includes("/") && metric.key.split("/")[0] !== task.profile ? ` (${metric.key.split("/")[0]})` : ""}`;
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\"'\"'")}'`);
const commandOf = (task, m, c) => {
  const method = task.methods[m];
  const weights = method.weights ? ` --checkpoint ${quoted(`${method.method}=${method.file || "WEIGHTS"}`)}` : "";
  return task.command.replace("{method}", () => quoted(method.method)).replace("{case}", () => quoted(task.cases[c])).replace("{weights}", () => weights).replace("{seed}", method.seed || "0");
};

let now = null; // { id, task, m, source, order, c }
const orderOf = (task, m, source) => {
  const value = valueOf(task, source, m);
  const sign = metricOf(task, source).better === "higher" ? 1 : -1;
  const known = task.cases.map((_, c) => [task.methods[m].status[c], value(c), c]);
  // Failures first, then from the worst to the best, then what has no value.
  const group = ([status, v]) => (status === "2" ? 0 : v === null || v === undefined ? 2 : 1);
  return known.sort((a, b) => group(a) - group(b) || sign * ((a[1] ?? 0) - (b[1] ?? 0)) || a[2] - b[2]).map(([, , c]) => c);
};
const showList = () => {
  const { task, m, source, order } = now;
  const value = valueOf(task, source, m);
  const metric = metricOf(task, source);
  const find = dialog.querySelector(".find").value.toLowerCase();
  const numbers = order.map(value).filter((v) => v !== null && v !== undefined);
  const high = Math.max(...numbers), low = Math.min(0, ...numbers);
  const items = document.createDocumentFragment();
  for (const c of order) {
    if (find && !task.cases[c].toLowerCase().includes(find)) continue;
    const status = STATUS[task.methods[m].status[c]];
    const button = el("button", undefined, `case ${status}`);
    button.type = "button";
    button.dataset.c = c;
    if (c === now.c) button.setAttribute("aria-current", "true");
    const v = value(c);
    if (v !== null && v !== undefined && high > low) button.style.setProperty("--part", `${(100 * (v - low)) / (high - low)}%`);
    button.append(el("span", task.cases[c]), el("b", status === "ok" ? written(metric, v) : status));
    const item = el("li");
    item.append(button);
    items.append(item);
  }
  dialog.querySelector(".list ol").replaceChildren(items);
  dialog.querySelector(".list [aria-current]")?.scrollIntoView({ block: "nearest" });
};
const valueTable = (caption, rows) => {
  const table = el("table");
  table.append(el("caption", caption));
  for (const [name, text, hint] of rows) {
    const row = table.insertRow();
    row.append(Object.assign(el("th", name), { title: hint ?? "" }));
    row.append(el("td", text, "num"));
  }
  return table;
};
const showCase = (c) => {
  const { task, m } = now;
  now.c = c;
  const method = task.methods[m];
  const one = dialog.querySelector(".one");
  one.querySelector("h3").textContent = task.cases[c];
  const status = STATUS[method.status[c]];
  const reason = task.reasons[task.reason_of[m][c]];
  one.querySelector(".status").textContent = [`${method.name}, version ${method.version}, settings ${method.settings}, seed ${method.seed}`, task.condition && `frames given: ${task.condition}`, status !== "ok" && `${status}${reason ? `: ${reason}` : ""}`].filter(Boolean).join("; ");
  one.querySelector(".status").classList.toggle("failed", status === "failed");
  const panel = one.querySelector(".panel");
  panel.replaceChildren();
  const name = task.panels[m]?.[c];
  if (name && /^[\w./-]+$/.test(name) && !name.includes("..") && !name.startsWith("/")) {
    // A page that stands alone holds the picture where the case is shown, if it is.
    const inside = document.querySelector(`a[href="#case/${now.id}/${m}/${c}"] img`)?.src;
    const source = inside?.startsWith("data:") ? inside : task.panel_head + name + task.panel_tail;
    const picture = Object.assign(el("img"), { src: source, alt: `${method.name} on ${task.cases[c]}` });
    picture.addEventListener("error", () => panel.replaceChildren(el("p", "The picture is not beside this page.", "note")));
    panel.append(picture);
  }
  const groups = new Map();
  for (const metric of task.metrics) {
    const v = valueOf(task, metric.key, m)(c);
    if (v === null || v === undefined) continue;
    const group = metric.key.includes("/") ? `profile ${metric.key.split("/")[0]}` : "cost";
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push([titled(task, { ...metric, key: metric.key.split("/").pop() }), written(metric, v), metric.hint]);
  }
  const boxes = [...groups].map(([caption, rows]) => valueTable(caption, rows));
  // In tables a failure counts as the worst value of each label; it has none of its own.
  for (const key of status === "ok" ? Object.keys(task.labels) : []) {
    const metric = metricOf(task, key);
    const labels = Object.keys(task.labels[key].data).sort((a, b) => a - b || (a < b ? -1 : 1));
    const rows = labels.map((label) => [label, written(metric, valueOf(task, `${key}#${label}`, m)(c))]);
    const box = el("div", undefined, "many");
    box.append(valueTable(`${titled(task, metric)} of each label`, rows));
    boxes.push(box);
  }
  one.querySelector(".values").replaceChildren(...boxes);
  one.querySelector("code").textContent = commandOf(task, m, c);
  one.querySelector(".weights").textContent = method.weights ? `${method.file || "WEIGHTS"}: weights with the checksum ${method.weights}, a file or a name that comes with the package.` : "";
  showRivals(c);
  dialog.querySelectorAll(".list [aria-current]").forEach((b) => b.removeAttribute("aria-current"));
  const here = dialog.querySelector(`.list [data-c="${c}"]`);
  here?.setAttribute("aria-current", "true");
  here?.scrollIntoView({ block: "nearest" });
};
const showRivals = (c) => {
  const { task, m, source } = now;
  const metric = metricOf(task, source);
  const sign = metric.better === "higher" ? -1 : 1;
  const lines = task.methods.map((method, i) => [i, method.status[c] === "1" ? valueOf(task, source, i)(c) : null]);
  lines.sort(([, a], [, b]) => (a === null || b === null ? (a === null) - (b === null) : sign * (a - b)));
  const table = el("table");
  for (const [i, v] of lines) {
    const row = table.insertRow();
    if (i === m) row.className = "here";
    const button = Object.assign(el("button", task.methods[i].name), { type: "button" });
    button.addEventListener("click", () => go(`case/${now.id}/${i}/${c}`));
    row.insertCell().append(button);
    row.append(el("td", STATUS[task.methods[i].status[c]] === "ok" ? written(metric, v) : STATUS[task.methods[i].status[c]], "num"));
  }
  dialog.querySelector(".rivals").replaceChildren(el("p", titled(task, metric), "note"), table);
};
const openCases = (id, m, source, c) => {
  const task = taskOf(id);
  if (!task || !task.methods[m] || (c !== undefined && !task.cases[c])) return;
  const same = now && now.id === id && now.m === m && now.source === source;
  if (same && dialog.open && c !== undefined) return showCase(c);
  source ||= now?.id === id ? now.source : task.primary || task.metrics[0]?.key || "wall_s";
  now = { id, task, m, source, order: orderOf(task, m, source), c: c ?? null };
  if (now.c === null) now.c = now.order[0];
  if (!same) dialog.querySelector(".find").value = "";
  dialog.querySelector("h2").textContent = `${task.methods[m].name} on ${task.task}${task.condition ? `, ${task.condition}` : ""}`;
  const select = dialog.querySelector("select");
  const options = task.metrics.map((metric) => [metric.key, titled(task, metric)]);
  if (!options.some(([key]) => key === source)) options.unshift([source, titled(task, metricOf(task, source))]);
  select.replaceChildren(...options.map(([key, title]) => Object.assign(el("option", title), { value: key, selected: key === source })));
  showList();
  showCase(now.c);
  if (!dialog.open) dialog.showModal();
};
const go = (address) => (location.hash = address);
const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};
const follow = () => {
  const [kind, id, m, ...rest] = location.hash.slice(1).split("/");
  if (kind === "cases") openCases(id, Number(m), decoded(rest.join("/")));
  else if (kind === "case") openCases(id, Number(m), now?.id === id ? now.source : "", Number(rest[0]));
  else if (dialog.open) dialog.close();
};
window.addEventListener("hashchange", follow);
dialog.addEventListener("close", () => {
  if (/^#cases?\//.test(location.hash)) history.replaceState(null, "", location.pathname + location.search);
});
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.querySelector("select").addEventListener("change", (event) => openCases(now.id, now.m, event.target.value));
dialog.querySelector(".find").addEventListener("input", showList);
dialog.querySelector(".list ol").addEventListener("click", (event) => {
  const button = event.target.closest("[data-c]");
  if (button) go(`case/${now.id}/${now.m}/${button.dataset.c}`);
});
const step = (by) => {
  const next = now.order[now.order.indexOf(now.c) + by];
  if (next !== undefined) go(`case/${now.id}/${now.m}/${next}`);
};
dialog.querySelector(".previous").addEventListener("click", () => step(-1));
dialog.querySelector(".next").addEventListener("click", () => step(1));
dialog.addEventListener("keydown", (event) => {
  if (/INPUT|SELECT/.test(event.target.tagName)) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") step(event.key === "ArrowLeft" ? -1 : 1);
});
dialog.querySelector(".take").addEventListener("click", (event) => toClipboard(dialog.querySelector("code").textContent, event.target));
document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-c], [data-source], [data-against]");
  const holder = target?.closest("[data-m]");
  const id = target?.closest("[data-task]")?.dataset.task;
  if (!holder || id === undefined || dialog.contains(target)) return;
  const m = holder.dataset.m;
  const against = target.dataset.against;
  const source = against === undefined ? (target.closest("[data-source]")?.dataset.source ?? "") : `less:${against}:${taskOf(id).primary}`;
  if (target.dataset.c !== undefined) {
    if (source) openCases(id, Number(m), source);
    go(`case/${id}/${m}/${target.dataset.c}`);
  } else go(`cases/${id}/${m}/${encodeURIComponent(source)}`);
});
follow();
