// Evaluated in a page by test_console_browser.py; returns what is wrong: text that is hard to read by the formula of WCAG 2
// (large text needs less), and controls that have no name.
() => {
  const parse = (text) => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    throw new Error("nothing is behind it");
  };
  const wrong = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim();
    const element = walk.currentNode.parentElement;
    const passed = ".hidden, .skip, .off, option, button:disabled, script";
    if (!text || !element.getClientRects().length || element.closest(passed)) continue;
    const style = getComputedStyle(element);
    const [light, dark] = [luminance(parse(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) wrong.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  const controls = "input:not([type=hidden]):not([hidden]), select, textarea, button, a, summary";
  for (const control of document.querySelectorAll(controls)) {
    const named = control.labels?.length || control.textContent.trim() || control.getAttribute("aria-label");
    if (!named) wrong.push(`no name: ${control.outerHTML}`);
  }
  return wrong;
}
