// What the server cannot do: choose a window on the timeline by mouse, finger or keys, and copy text.
(() => {
  const CLICK_PX = 5;
  let drag = null;

  const share = (plot, x) => {
    const box = plot.getBoundingClientRect();
    return Math.min(1, Math.max(0, (x - box.left) / box.width));
  };
  const show = (plot, from, to) => {
    for (const each of plot.closest(".timeline").querySelectorAll(".plot")) {
      let chosen = each.querySelector(".chosen");
      if (!chosen) {
        chosen = document.createElement("div");
        chosen.className = "chosen";
        each.append(chosen);
      }
      chosen.style.left = `${100 * Math.min(from, to)}%`;
      chosen.style.width = `${100 * Math.abs(to - from)}%`;
    }
  };
  const moment = (plot, at) => emitEvent("salmonn_moment", { source: plot.dataset.source, at });

  document.addEventListener("pointerdown", (event) => {
    const plot = event.target.closest?.(".timeline .plot");
    if (!plot || event.button) return;
    drag = { plot, x: event.clientX, from: share(plot, event.clientX), moved: false };
    plot.setPointerCapture?.(event.pointerId);
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved = drag.moved || Math.abs(event.clientX - drag.x) > CLICK_PX;
    if (drag.moved) show(drag.plot, drag.from, share(drag.plot, event.clientX));
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { plot, from, moved } = drag;
    drag = null;
    if (moved) emitEvent("salmonn_window", { from, to: share(plot, event.clientX) });
    else moment(plot, from);
  });
  document.addEventListener("pointercancel", () => { drag = null; });

  document.addEventListener("keydown", (event) => {
    const plot = event.target.closest?.(".timeline .plot");
    if (!plot) return;
    const step = 1 / Math.max(1, Number(plot.closest(".timeline").dataset.bins));
    const at = Number(plot.dataset.at ?? 0.5);
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const next = Math.min(1, Math.max(0, at + (event.key === "ArrowLeft" ? -step : step)));
      if (event.shiftKey) {
        plot.dataset.anchor ??= at;
        show(plot, Number(plot.dataset.anchor), next);
      } else delete plot.dataset.anchor;
      plot.dataset.at = next;
      plot.querySelector(".cursor").style.left = `${100 * next}%`;
    } else if (event.key === "Enter") {
      if (plot.dataset.anchor !== undefined) emitEvent("salmonn_window", { from: Number(plot.dataset.anchor), to: at });
      else moment(plot, at);
    } else return;
    event.preventDefault();
  });

  window.salmonnCopy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without https, browsers offer no clipboard to a page of another machine.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
})();
