// Dark or light: as the system says, until somebody chooses.

const KEY = "xbat-live-theme";

export function initTheme(button, changed) {
  const system = matchMedia("(prefers-color-scheme: light)");
  const apply = () => {
    const theme = localStorage.getItem(KEY) ?? (system.matches ? "light" : "dark");
    document.documentElement.dataset.theme = theme;
    changed();
  };
  button.addEventListener("click", () => {
    localStorage.setItem(KEY, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}
