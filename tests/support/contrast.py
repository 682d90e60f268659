"""How well the texts of a page can be read: a script to evaluate in it.

ratio, whose = page.evaluate(WORST_CONTRAST)
assert ratio >= 4.5, whose
"""

from __future__ import annotations

__all__ = ["WORST_CONTRAST", "WORST_FILL"]

WORST_CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const background = (e) => {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    return colour.length < 4 || colour[3] === 1 ? colour : background(e.parentElement);
  };
  const contrast = (e) => {
    const pair = [numbers(getComputedStyle(e).color), background(e)].map(luminance);
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  };
  const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && hasText(e));
  return texts.map((e) => [contrast(e), e.className || e.tagName]).sort((a, b) => a[0] - b[0])[0];
}"""
"""The contrast of each text with the nearest background behind it, after WCAG 2.2; the worst, and whose it is."""

WORST_FILL = """(selector) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const fill = (e) => luminance(numbers(getComputedStyle(e).fill));
  const page = luminance(numbers(getComputedStyle(document.body).backgroundColor));
  const behind = [page, ...[...document.querySelectorAll("svg .gap, svg .waiting")].map(fill)];
  const drawn = [...document.querySelectorAll(selector)];
  const found = drawn.flatMap((e) => behind.map((b) => [contrast(fill(e), b), e.outerHTML.slice(0, 80)]));
  return found.sort((a, b) => a[0] - b[0])[0];
}"""
"""The same of what is drawn in a picture, with the page and with what is shaded there; `selector` says what."""
