// Building and updating elements. Every string from outside becomes a text node or a checked attribute:
// nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

// el("p", {class: "note"}, "text", el("b", {}, "bold"))
export function el(tag, attributes, ...children) {
  return make(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return make(document.createElementNS(SVG, tag), attributes, children);
}

// A link to somewhere a stranger named: only plain web addresses become links, all else stays text.
export function outside(text, label = text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return el("span", { class: "mono" }, label);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return el("span", { class: "mono" }, label);
  return el("a", { href: url.href, rel: "noopener noreferrer nofollow external", class: "mono" }, label);
}

// Make `old` look like `fresh`, keeping what is equal: focus, selection and scrolling survive an update.
export function morph(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((wanted, place) => {
    const known = before[place];
    if (known === undefined) old.append(wanted);
    else if (known.nodeType !== wanted.nodeType || known.nodeName !== wanted.nodeName) known.replaceWith(wanted);
    else if (known.nodeType === Node.TEXT_NODE) {
      if (known.data !== wanted.data) known.data = wanted.data;
    } else if (known.dataset?.keep !== undefined && known.dataset.keep === wanted.dataset?.keep) {
      // Its owner updates it.
    } else {
      for (const { name } of [...known.attributes]) {
        if (!wanted.hasAttribute(name) && !(name === "open" && known.nodeName === "DETAILS")) known.removeAttribute(name);
      }
      for (const { name, value } of wanted.attributes) {
        if (known.getAttribute(name) !== value) known.setAttribute(name, value);
      }
      morph(known, wanted);
    }
  });
  before.slice(after.length).forEach((node) => node.remove());
}

// A table that stays one for screen readers when style stacks its cells on a narrow screen.
// columns: [{label, number}]; rows: arrays of cells.
export function table(caption, columns, rows, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty ?? "Nothing here yet.");
  const head = columns.map((column) =>
    el("th", { role: "columnheader", scope: "col", class: column.number ? "number" : null }, column.label));
  const body = rows.map((cells) =>
    el("tr", { role: "row" }, cells.map((cell, place) =>
      el("td", { role: "cell", "data-label": columns[place].label, class: columns[place].number ? "number" : null },
        el("div", {}, cell)))));
  return el("div", { class: "scroll" },
    el("table", { role: "table" },
      el("caption", { class: "quiet" }, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
      el("tbody", { role: "rowgroup" }, body)));
}

export function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}

// Name and value pairs.
export function facts(pairs) {
  return el("dl", { class: "facts" },
    pairs.filter(Boolean).map(([name, ...value]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value))));
}
