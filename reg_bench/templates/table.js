"use strict";
// Tables: a click on a head sorts, a second one the other way, lines without a value stay last; filters, columns, copies.
const sortTable = (table, column, down) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => (i === column ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim().toLowerCase() : cell.dataset.key === "" ? null : Number(cell.dataset.key);
  };
  const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
};
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () => sortTable(table, column, head.getAttribute("aria-sort") === "ascending")));
}

const shownCells = (row) => [...row.cells].filter((cell) => !cell.hidden).map((cell) => cell.textContent.trim().replace(/\s+/g, " "));
const asText = (table, kind) => {
  const lines = [table.tHead.rows[0], ...[...table.tBodies[0].rows].filter((row) => !row.hidden)].map(shownCells);
  if (kind === "csv") return lines.map((line) => line.map((c) => (/[",\n]/.test(c) ? `"${c.replace(/"/g, '""')}"` : c)).join(",")).join("\n") + "\n";
  if (kind === "latex") {
    const safe = (c) => c.replace(/\\/g, "\\textbackslash{}").replace(/[&%$#_{}]/g, "\\$&").replace(/~/g, "\\textasciitilde{}").replace(/\^/g, "\\textasciicircum{}").replace(/ ± /g, " $\\pm$ ").replace(/–/g, "--").replace(/</g, "$<$");
    const [head, ...body] = lines.map((line) => line.map(safe).join(" & ") + " \\\\");
    return `\\begin{tabular}{rl${"r".repeat(lines[0].length - 2)}}\n\\toprule\n${head}\n\\midrule\n${body.join("\n")}\n\\bottomrule\n\\end{tabular}\n`;
  }
  const [head, ...body] = lines.map((line) => `| ${line.map((c) => c.replace(/\|/g, "\\|")).join(" | ")} |`);
  return [head, `|${lines[0].map((_, i) => (i === 1 ? "---" : "---:")).join("|")}|`, ...body].join("\n") + "\n";
};
const toClipboard = async (text, button) => {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages from disk may not be allowed to; the old way still is.
    const area = Object.assign(document.createElement("textarea"), { value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.dataset.copied = text;
  button.textContent = "copied";
  setTimeout(() => (button.textContent = before), 1200);
};

for (const section of document.querySelectorAll("section.task")) {
  const table = section.querySelector("table.board");
  const filter = section.querySelector(".filter");
  const boxes = [...section.querySelectorAll(".tools > label > input")];
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const without = new Set(boxes.filter((box) => !box.checked).flatMap((box) => (box.classList.contains("references") ? ["floor", "ceiling"] : ["incomplete", "skipped"])));
    const out = new Set();
    for (const row of section.querySelectorAll("table.sortable > tbody > tr")) {
      const name = row.cells[1].textContent.toLowerCase();
      row.hidden = !words.every((word) => name.includes(word)) || [...row.classList].some((c) => without.has(c));
      if (table.contains(row) && row.hidden) out.add(row.dataset.m);
    }
    for (const mark of section.querySelectorAll(".plot g[data-m], .heat [data-m]")) mark.classList.toggle("dim", out.has(mark.dataset.m));
    for (const method of section.querySelectorAll("details.method")) method.hidden = out.has(method.dataset.m);
    const all = table.tBodies[0].rows.length;
    section.querySelector(".shown").textContent = out.size ? `${all - out.size} of ${all}` : "";
  };
  filter.addEventListener("input", apply);
  boxes.forEach((box) => box.addEventListener("change", apply));
  section.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => toClipboard(asText(table, button.dataset.copy), button)));
  const menu = section.querySelector(".columns > div");
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (column < 2) return;
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => [...table.rows].forEach((row) => (row.cells[column].hidden = !box.checked)));
    label.append(box, head.textContent.trim());
    menu.append(label);
  });
  // The method under the pointer stands out in every drawing.
  const light = (m, on) => m !== undefined && section.querySelectorAll(`.plot g[data-m="${m}"]`).forEach((g) => g.classList.toggle("lit", on));
  table.tBodies[0].addEventListener("pointerover", (event) => light(event.target.closest("tr")?.dataset.m, true));
  table.tBodies[0].addEventListener("pointerout", (event) => light(event.target.closest("tr")?.dataset.m, false));
}
