// Return the words that cannot be read whole because they are wider than their place, or
// reach beyond the left or right edge of the window. Of a dialog alone, if one is open.
() => {
  const elements = function* (root) {
    for (const element of root.children) {
      yield element;
      yield* elements(element.shadowRoot ?? element);
      if (element.shadowRoot) yield* elements(element);
    }
  };
  const all = [...elements(document.body)];
  const dialogs = all.filter((e) => e.localName === "dialog" && e.open);
  const inside = (element) => {
    // The flat tree: a slotted element is where its slot is.
    for (let e = element; e; e = e.assignedSlot ?? e.parentNode ?? e.host)
      if (dialogs.includes(e)) return true;
    return false;
  };
  const words = (element) =>
    [...element.childNodes]
      .filter((node) => node.nodeType === Node.TEXT_NODE)
      .map((node) => node.textContent.trim())
      .join(" ")
      .trim();
  const clipping = (element) => {
    // The nearest one that hides what is wider than itself.
    for (let e = element; e; e = e.assignedSlot ?? e.parentNode ?? e.host) {
      if (!(e instanceof Element)) continue;
      const style = getComputedStyle(e);
      if (["auto", "scroll"].includes(style.overflowX)) return null;
      if (style.display !== "inline" && ["hidden", "clip"].includes(style.overflowX))
        return e;
    }
    return null;
  };
  const isVisible = (element) => {
    // What has no box of its own, as slots, would never be.
    let e = element;
    while (e && getComputedStyle(e).display === "contents")
      e = e.parentElement ?? e.getRootNode().host;
    return e?.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  };
  const found = new Set();
  for (const element of all) {
    const text = words(element);
    if (!text || !isVisible(element)) continue;
    if (dialogs.length && !inside(element)) continue;
    const range = document.createRange();
    range.selectNodeContents(element);
    const box = range.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) continue; // for screen readers alone
    const clipper = clipping(element);
    // Behind an ellipsis, a range is only as wide as what is drawn.
    if (
      clipper &&
      getComputedStyle(clipper).textOverflow === "ellipsis" &&
      clipper.scrollWidth > clipper.clientWidth + 1
    )
      found.add(text);
    const clip = clipper?.getBoundingClientRect();
    const left = Math.max(clip?.left ?? 0, 0);
    const right = Math.min(clip?.right ?? innerWidth, innerWidth);
    if (clip && (clip.width < 2 || clip.height < 2)) continue;
    // A label within its field has room for one line; the next stands in what is typed.
    const lines = new Set([...range.getClientRects()].map((line) => Math.round(line.top)));
    if (element.slot === "label" && element.closest("wa-input") && lines.size > 1)
      found.add(text);
    if (box.left < left - 1 || box.right > right + 1) found.add(text);
  }
  return [...found];
};
