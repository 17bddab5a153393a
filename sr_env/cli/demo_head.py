"""What the page's head adds to Gradio: the divider between the two pictures answers to keys.

Gradio's own is dragged with a pointer alone, and no screen reader knows it. It is moved by the pointer's events here,
too, so that Gradio alone knows where it may go.
"""

from __future__ import annotations

#: Share of the width that a key moves the divider by; Home and End move it to the sides.
_STEP, _LEAP = 0.02, 0.1

HEAD = f"""
<style>
#compare [data-testid=slider]:focus-visible {{ outline: 3px solid var(--color-accent); outline-offset: -3px; }}
</style>
<script>
(() => {{
  const moves = {{
    ArrowLeft: -{_STEP}, ArrowDown: -{_STEP}, PageDown: -{_LEAP}, Home: -2,
    ArrowRight: {_STEP}, ArrowUp: {_STEP}, PageUp: {_LEAP}, End: 2,
  }};
  const place = (handle) => {{
    const box = handle.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  }};
  const tell = (handle) => {{
    const [wrap, [x]] = [handle.parentElement.getBoundingClientRect(), place(handle)];
    const share = Math.round(100 * Math.min(1, Math.max(0, (x - wrap.left) / wrap.width)));
    handle.setAttribute("aria-valuenow", share);
    handle.setAttribute("aria-valuetext", `${{share}} % bicubic, ${{100 - share}} % SR`);
  }};
  const move = (handle, share) => {{
    const [[x, y], wrap] = [place(handle), handle.parentElement.getBoundingClientRect()];
    const to = Math.min(wrap.right, Math.max(wrap.left, x + share * wrap.width));
    const send = (target, kind, clientX) => target.dispatchEvent(
      new MouseEvent(kind, {{ bubbles: true, cancelable: true, view: window, clientX, clientY: y }})
    );
    send(handle, "mousedown", x);
    send(window, "mousemove", to);
    send(window, "mouseup", to);
  }};
  const equip = (handle) => {{
    const marks = {{
      tabindex: 0, role: "slider", "aria-label": "Divider between the bicubic picture and SR",
      "aria-orientation": "horizontal", "aria-valuemin": 0, "aria-valuemax": 100,
    }};
    for (const [name, value] of Object.entries(marks)) handle.setAttribute(name, value);
    handle.addEventListener("keydown", (event) => {{
      if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(handle, moves[event.key]);
    }});
    new MutationObserver(() => tell(handle)).observe(handle, {{ attributeFilter: ["style"] }});
    tell(handle);
  }};
  const look = () => document.querySelectorAll("#compare [data-testid=slider]:not([tabindex])").forEach(equip);
  new MutationObserver(look).observe(document, {{ childList: true, subtree: true }});
}})();
</script>
"""
