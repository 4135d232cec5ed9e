// The page: colours, where one is, and what opens for the printer.
const themes = ["", "light", "dark"];
const themeButton = document.querySelector(".theme");
const remembered = (value) => {
  try {
    if (value === undefined) return localStorage.getItem("reg-bench-theme") ?? "";
    localStorage.setItem("reg-bench-theme", value);
  } catch {
    // No storage for pages from disk: the choice lasts as long as the page.
  }
  return "";
};
const setTheme = (theme) => {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  themeButton.textContent = { "": "◐", light: "☀", dark: "☾" }[theme];
  themeButton.setAttribute("aria-label", `colours: ${theme || "as the system says"}`);
};
setTheme(themes.includes(remembered()) ? remembered() : "");
themeButton.addEventListener("click", () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "") + 1) % 3];
  setTheme(next);
  remembered(next);
});

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && links.forEach((link, id) => link.classList.toggle("here", id === entry.target.id))),
  { rootMargin: "-15% 0px -75% 0px" },
);
links.forEach((_, id) => document.getElementById(id) && seen.observe(document.getElementById(id)));

// What drops down goes away when something else is looked at.
document.addEventListener("pointerdown", (event) => {
  document.querySelectorAll("details.columns[open]").forEach((menu) => menu.contains(event.target) || (menu.open = false));
});

let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main details:not([open], .columns)")];
  opened.forEach((details) => (details.open = true));
  document.querySelectorAll("img[loading=lazy]").forEach((image) => (image.loading = "eager"));
});
window.addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
