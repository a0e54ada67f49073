"use strict";
(() => {
  const root = document.documentElement;
  const charts = [...document.querySelectorAll(".chart")];
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const KEY = "semipix-theme";

  // A page that is opened from a disk may have no storage.
  const stored = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem(KEY, theme); } catch { /* it is chosen for this visit only */ } };

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const themed = () => {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), tickcolor: colour("--line") };
    const layout = { "font.color": colour("--text"), "hoverlabel.bgcolor": colour("--panel"),
      "hoverlabel.font.color": colour("--text") };
    for (const name of ["xaxis", "yaxis"]) {
      for (const [key, value] of Object.entries(axis)) layout[`${name}.${key}`] = value;
    }
    return layout;
  };

  const applyTheme = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    for (const chart of charts) {
      if (!chart.data) continue;
      Plotly.relayout(chart, themed());
      // Lines have error bars of their own colour; those of bars, and the numbers in cells, are text.
      for (const [index, trace] of chart.data.entries()) {
        if (trace.type === "bar") Plotly.restyle(chart, { "error_y.color": colour("--text") }, [index]);
        if (trace.type === "heatmap") Plotly.restyle(chart, { "textfont.color": colour("--text") }, [index]);
      }
    }
  };

  const button = document.getElementById("theme");
  const before = stored();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    store(root.dataset.theme);
    applyTheme();
  });
  systemDark.addEventListener("change", applyTheme);

  for (const chart of charts) {
    const figure = JSON.parse(document.getElementById(chart.dataset.figure).textContent);
    Plotly.newPlot(chart, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }
  applyTheme();

  for (const image of document.querySelectorAll(".pictures img")) {
    const mark = () => image.classList.toggle("small", image.naturalWidth < 200);
    image.complete ? mark() : image.addEventListener("load", mark);
  }

  for (const pair of document.querySelectorAll(".pair")) {
    const pictures = [...pair.closest(".image").querySelectorAll(".pictures img")];
    const stack = pair.querySelector(".stack");
    const choose = (select, picture, wanted) => {
      for (const each of pictures) select.add(new Option(each.alt));
      const show = () => {
        const source = pictures[select.selectedIndex];
        picture.src = source.src;
        picture.alt = source.alt;
        picture.classList.toggle("small", source.naturalWidth < 200);
      };
      select.selectedIndex = Math.max(0, pictures.findIndex((each) => each.alt === wanted));
      select.addEventListener("change", show);
      show();
    };
    choose(pair.querySelector(".left"), pair.querySelector(".over"), pair.dataset.left);
    choose(pair.querySelector(".right"), pair.querySelector(".under"), pair.dataset.right);
    const edge = pair.querySelector("input");
    const move = () => stack.style.setProperty("--edge", `${edge.value}%`);
    edge.addEventListener("input", move);
    move();
    pair.hidden = false;
  }
})();
