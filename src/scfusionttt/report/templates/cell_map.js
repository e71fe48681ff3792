"use strict";
// The interactive map of cells: draws the data packed by cell_map.py. No library, no network.
(() => {
const MISSING = 255, LAYERS = 8, MARGIN = 18;
const LIGHT = { ink: "#1f2430", paper: "#ffffff", missing: "#ced2d9", faint: "#e3e6eb" };
const DARK = { ink: "#e7eaf0", paper: "#191d24", missing: "#4a515d", faint: "#2a303a" };
const night = matchMedia("(prefers-color-scheme: dark)");
const clamp = (x, low, high) => Math.max(Math.min(x, high), low); // low if nothing is between them
const count = (n) => n.toLocaleString("en");
const number = (x) => String(Number(x.toPrecision(3)));
const percent = (part, whole) => `${(100 * part / whole).toFixed(0)} %`;
// What a search ignores: case, and the separators in names of antibodies.
const plain = (text) => text.trim().toLowerCase().replace(/[\s_-]+/g, "");

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function element(tag, text = "", traits = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, traits);
}

// Mix a colour with white until it is light enough for a dark background.
function lighten(hex) {
  let rgb = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const light = (0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]) / 255;
  const share = clamp((0.42 - light) / (1 - light), 0, 1);
  return `rgb(${rgb.map((part) => Math.round(part + (255 - part) * share)).join(" ")})`;
}

function save(name, lines) {
  const link = element("a", "", { href: URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/plain" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

class CellMap {
  constructor(root, data) {
    Object.assign(this, { root, data, picked: null, shown: null, chosen: new Set(), zoom: 1, middle: [0.5, 0.5], path: null });
    this.find = (name) => root.querySelector(`.${name}`);
    this.canvas = root.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    this.theme = night.matches ? DARK : LIGHT;
  }

  async open() {
    const { data } = this;
    const places = new Uint16Array(await unpack(data.places));
    this.x = Float32Array.from(places.subarray(0, data.n), (x) => x / 65535);
    this.y = Float32Array.from(places.subarray(data.n), (y) => y / 65535);
    this.names = new TextDecoder().decode(await unpack(data.cells)).split("\n");
    for (const category of data.categories) {
      category.of = new Uint16Array(await unpack(category.codes));
      category.sizes = this.tally(category);
    }
    this.extent = [Math.max(...[this.x, this.y].map((axis) => axis.reduce((a, b) => Math.max(a, b), 0))) || 1,
      this.x.reduce((a, b) => Math.max(a, b), 0), this.y.reduce((a, b) => Math.max(a, b), 0)];
    this.middle = [this.extent[1] / 2, this.extent[2] / 2];
    this.fillControls();
    this.fillComposition();
    this.listen();
    await this.colour(0);
    this.compose();
  }

  // Whether a cell is one of those that the reader chose to show.
  visible(i) { return !this.shown || this.shown[i]; }

  tally(category, mask = null) {
    const sizes = new Array(category.classes.length + 1).fill(0);
    category.of.forEach((code, i) => { if ((!mask || mask[i]) && this.visible(i)) sizes[code]++; });
    return sizes;
  }

  // All columns to colour by: the categories, then the values.
  get channels() { return [...this.data.categories, ...this.data.values]; }

  fillControls() {
    const groups = new Map(), only = this.find("only");
    this.known = new Map();
    this.channels.forEach((channel, at) => {
      const { heading } = channel;
      if (!groups.has(heading)) groups.set(heading, this.find("by").appendChild(element("optgroup", "", { label: heading })));
      groups.get(heading).append(element("option", channel.name, { value: at }));
      this.learn([channel.name, ...channel.also ?? []], heading, () => this.colour(at));
      if (!channel.classes) return;
      const list = only.appendChild(element("optgroup", "", { label: channel.name }));
      channel.classes.forEach((name, code) => {
        list.append(element("option", name, { value: `${at} ${code}` }));
        this.learn([name], channel.name, async () => { await this.colour(at); this.chosen = new Set(); this.choose(code); });
      });
    });
  }

  // Remember what to do if a name is searched for; the first name is the one that is offered.
  learn(names, kind, act) {
    const entry = { text: `${names[0]} (${kind})`, act };
    this.root.querySelector("datalist").append(element("option", "", { value: entry.text }));
    for (const name of new Set([entry.text, ...names].map(plain))) {
      this.known.set(name, [...this.known.get(name) ?? [], entry]);
    }
  }

  // Show only the cells of one class, or all.
  restrict(value) {
    const [at, code] = value.split(" ").map(Number);
    this.shown = value && Uint8Array.from(this.channels[at].of, (own) => own === code);
    for (const category of this.data.categories) Object.assign(category, { sizes: this.tally(category), anchors: null });
    this.pick(null);
    this.showLegend();
    this.compose();
  }

  // Colour cells by a channel: set the colour index of each cell and the drawing order.
  async colour(at) {
    const channel = this.channels[at];
    this.asked = channel;
    await this.load(channel);
    if (this.asked !== channel) return; // another channel was chosen in the meantime
    if (channel !== this.channel) this.chosen = new Set(); // the selected cells stay selected
    this.channel = channel;
    this.find("by").value = at;
    const ramp = this.data.ramp.length, { n } = this.data;
    this.paint = Uint16Array.from(channel.of, (code) => {
      if (channel.classes) return code;
      return code === MISSING ? ramp : Math.round(clamp(this.share(channel, code), 0, 1) * (ramp - 1));
    });
    const absent = channel.classes ? channel.classes.length : ramp;
    // Classes are interleaved, so that none hides another; values go from low to high; missing values are below.
    const rank = (i) => this.paint[i] === absent ? -1
      : channel.classes ? (Math.imul(i, 2654435761) >>> 29) % LAYERS * 4096 + this.paint[i] : this.paint[i];
    const ranks = Int32Array.from({ length: n }, (_, i) => rank(i));
    this.order = Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => ranks[a] - ranks[b]);
    this.dress();
    this.showLegend();
    this.showPicked();
    this.draw();
  }

  async load(channel) { channel.of ??= new Uint8Array(await unpack(channel.levels)); }
  value(channel, code) { return channel.low + (channel.high - channel.low) * code / (MISSING - 1); }
  share(channel, code) { return (this.value(channel, code) - channel.from) / ((channel.to - channel.from) || 1); }

  dress() { this.colours = this.channel.classes ? this.palette(this.channel) : [...this.data.ramp, this.theme.missing]; }

  palette(category) {
    return [...category.colours.map((hex) => this.theme === DARK ? lighten(hex) : hex), this.theme.missing];
  }

  // Position of a cell on the canvas, in CSS pixels; y points upwards in the data.
  scale() { return (Math.min(this.width, this.height) - 2 * MARGIN) / this.extent[0] * this.zoom; }
  left(i) { return (this.x[i] - this.middle[0]) * this.scale() + this.width / 2; }
  top(i) { return (this.middle[1] - this.y[i]) * this.scale() + this.height / 2; }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.drawNow(); });
  }

  drawNow(width = this.canvas.clientWidth, height = this.canvas.clientHeight, ratio = devicePixelRatio || 1) {
    const { pen, canvas } = this;
    Object.assign(this, { width, height, ratio });
    canvas.width = Math.round(this.width * ratio);
    canvas.height = Math.round(this.height * ratio);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = this.theme.paper;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const radius = clamp(150 / Math.sqrt(this.data.n || 1) * this.zoom ** 0.45, 0.9, 6) * ratio;
    if (this.picked) this.points(radius, (i) => !this.picked[i], this.theme.faint);
    this.points(radius, (i) => !this.picked || this.picked[i]);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.channel.classes && this.find("named").checked) this.writeNames();
    if (this.path) this.drawPath();
  }

  points(radius, wanted, only = null) {
    const { pen, order, paint, ratio } = this, k = this.scale() * ratio;
    const x0 = this.width * ratio / 2 - this.middle[0] * k, y0 = this.height * ratio / 2 + this.middle[1] * k;
    const [right, bottom] = [this.canvas.width + radius, this.canvas.height + radius], stamps = new Map();
    for (const i of order) {
      const x = x0 + this.x[i] * k, y = y0 - this.y[i] * k;
      if (x < -radius || y < -radius || x > right || y > bottom || !this.visible(i) || !wanted(i)) continue;
      const colour = only || this.colours[paint[i]];
      if (!stamps.has(colour)) stamps.set(colour, this.stamp(colour, radius));
      const stamp = stamps.get(colour);
      pen.drawImage(stamp, x - stamp.width / 2, y - stamp.height / 2);
    }
  }

  stamp(colour, radius) {
    const side = Math.ceil(2 * radius) + 2, canvas = element("canvas", "", { width: side, height: side });
    const pen = canvas.getContext("2d");
    pen.fillStyle = colour;
    pen.arc(side / 2, side / 2, radius, 0, 2 * Math.PI);
    pen.fill();
    return canvas;
  }

  // Write class names on their cells, the largest classes first, leaving out names that would overlap.
  writeNames() {
    const { pen, channel } = this, taken = [];
    channel.anchors ||= this.anchors(channel);
    Object.assign(pen, { font: "600 13px system-ui, sans-serif", textAlign: "center", textBaseline: "middle", lineJoin: "round" });
    const bySize = [...channel.classes.keys()].sort((a, b) => channel.sizes[b] - channel.sizes[a]);
    for (const code of bySize) {
      const anchor = channel.anchors[code];
      if (anchor < 0 || (this.chosen.size && !this.chosen.has(code))) continue;
      const name = channel.classes[code], half = pen.measureText(name).width / 2 + 3;
      const x = clamp(this.left(anchor), half, this.width - half), y = this.top(anchor);
      if (taken.some((box) => Math.abs(box.x - x) < box.half + half && Math.abs(box.y - y) < 17)) continue;
      taken.push({ x, y, half });
      Object.assign(pen, { strokeStyle: this.theme.paper, lineWidth: 4, fillStyle: this.theme.ink });
      pen.strokeText(name, x, y);
      pen.fillText(name, x, y);
    }
  }

  // The cell nearest to the median of each class, so that a name is never placed between two groups.
  anchors(channel) {
    const members = channel.classes.map(() => []);
    channel.of.forEach((code, i) => { if (this.visible(i)) members[code]?.push(i); });
    return members.map((cells) => {
      if (!cells.length) return -1;
      const median = (axis) => Float32Array.from(cells, (i) => axis[i]).sort()[cells.length >> 1];
      const [x, y] = [median(this.x), median(this.y)];
      const far = (i) => (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
      return cells.reduce((best, i) => far(i) < far(best) ? i : best);
    });
  }

  drawPath() {
    const { pen } = this;
    pen.beginPath();
    this.path.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
    pen.closePath();
    Object.assign(pen, { strokeStyle: this.theme.ink, lineWidth: 1.5 });
    pen.setLineDash([5, 4]);
    pen.stroke();
    pen.setLineDash([]);
  }

  showLegend() {
    const { channel } = this, legend = this.find("legend");
    legend.replaceChildren(element("h3", channel.classes ? channel.name : `${channel.name}, ${channel.unit}`));
    if (!channel.classes) {
      const ramp = legend.appendChild(element("div", "", { className: "ramp" }));
      ramp.style.background = `linear-gradient(90deg, ${this.data.ramp.join(", ")})`;
      const scale = legend.appendChild(element("div", "", { className: "scale" }));
      scale.append(element("span", number(channel.from)), element("span", number(channel.to)));
      return;
    }
    const list = legend.appendChild(element("ul"));
    channel.classes.forEach((name, code) => {
      const button = list.appendChild(element("li")).appendChild(element("button", "", { type: "button" }));
      button.setAttribute("aria-pressed", this.chosen.has(code));
      const dot = button.appendChild(element("i"));
      dot.style.background = this.colours[code];
      button.append(element("span", name, { className: "name" }), element("span", count(channel.sizes[code]), { className: "count" }));
      button.onclick = () => this.choose(code);
    });
    const absent = channel.sizes[channel.classes.length];
    if (absent) list.append(element("li", `${channel.absent}: ${count(absent)}`));
  }

  // Add a class to the selection, or remove it; of the cells that are shown, as with the lasso.
  choose(code) {
    const chosen = new Set(this.chosen);
    if (!chosen.delete(code)) chosen.add(code);
    const picked = (own, i) => chosen.has(own) && this.visible(i);
    this.pick(chosen.size ? Uint8Array.from(this.channel.of, picked) : null, chosen);
  }

  pick(mask, chosen = new Set()) {
    Object.assign(this, { picked: mask && mask.includes(1) ? mask : null, chosen });
    [...this.root.querySelectorAll(".legend button")].forEach((button, code) =>
      button.setAttribute("aria-pressed", chosen.has(code)));
    this.showPicked(mask && !this.picked ? "No cells there." : "");
    this.compose();
    this.draw();
  }

  showPicked(message = "") {
    const { picked, channel, data } = this, side = this.find("picked");
    side.replaceChildren(...(message ? [element("p", message)] : []));
    if (!picked) return;
    const total = picked.reduce((sum, one) => sum + one, 0);
    side.append(element("h3", `${count(total)} of ${count(data.n)} cells selected`));
    if (!channel.classes) {
      const [inside, outside] = Object.values(this.compare(channel, picked)).map((mean) => Number.isFinite(mean) ? number(mean) : "–");
      side.append(element("p", `mean ${channel.name} (${channel.unit}): ${inside} selected, ${outside} others`));
    }
    const act = (text, done) => { side.appendChild(element("button", text, { type: "button" })).onclick = done; };
    act("Clear selection", () => { this.pick(null); this.canvas.focus(); });
    act("Save cell names", () => save("cells.txt", this.names.filter((_, i) => picked[i])));
    this.showMarkers(side);
    for (const category of data.categories) side.append(this.shares(category, this.tally(category, picked), total));
  }

  // Compare the selected cells with the others, for every protein and gene of the page.
  async showMarkers(side) {
    const { picked, data } = this, place = side.appendChild(element("div"));
    const features = data.values.filter((channel) => channel.heading !== "cell");
    await Promise.all(features.map((channel) => this.load(channel)));
    if (this.picked !== picked || !features.length) return;
    const rows = features.map((channel) => ({ channel, ...this.compare(channel, picked) })).sort((a, b) => b.t - a.t);
    for (const [heading, most] of [["protein", 250], ["gene", 12]]) {
      const own = rows.filter((row) => row.channel.heading === heading && (heading === "protein" || row.t > 0));
      if (own.length) place.append(this.means(`${heading}s, mean`, own.slice(0, most)));
    }
    const button = place.appendChild(element("button", "Save this table", { type: "button" }));
    const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
    button.onclick = () => save("markers.csv", ["kind,name,mean_selected,mean_others,t", ...rows.map((row) =>
      [row.channel.heading, quoted(row.channel.name), row.inside, row.outside, row.t].join())]);
    place.append(element("p", "Sorted by Welch's t of the selected cells against the others, among the genes and proteins of this page.", { className: "notes" }));
  }

  // Means of a channel in the selected cells and in the others, and Welch's t.
  compare(channel, picked) {
    const cells = [0, 0], sums = [0, 0], squares = [0, 0];
    channel.of.forEach((code, i) => {
      if (code === MISSING || !this.visible(i)) return;
      const value = this.value(channel, code), own = picked[i];
      cells[own]++; sums[own] += value; squares[own] += value * value;
    });
    const [outside, inside] = sums.map((sum, own) => sum / cells[own]);
    const error = [outside, inside].map((mean, own) => Math.max(squares[own] / cells[own] - mean * mean, 0) / Math.max(cells[own] - 1, 1));
    const t = (inside - outside) / Math.sqrt(error[0] + error[1]);
    return { inside, outside, t: Number.isNaN(t) ? 0 : t };  // ±Infinity: no variance on either side
  }

  means(title, rows) {
    const frame = element("div", "", { className: "scroll", tabIndex: 0 }), table = frame.appendChild(element("table"));
    table.append(element("caption", title));
    const head = table.createTHead().insertRow();
    for (const text of ["", "selected", "others"]) head.append(element("th", text, { scope: "col", className: "number" }));
    const body = table.createTBody();
    for (const { channel, inside, outside } of rows) {
      const row = body.insertRow(), button = element("button", channel.name, { type: "button", title: `Colour by ${channel.name}` });
      row.appendChild(element("th", "", { scope: "row" })).append(button);
      button.onclick = () => this.colour(this.channels.indexOf(channel));
      for (const mean of [inside, outside]) row.append(element("td", Number.isFinite(mean) ? mean.toFixed(2) : "–", { className: "number" }));
    }
    return frame;
  }

  shares(category, sizes, total) {
    const table = element("table"), most = [...sizes.keys()].filter((code) => sizes[code]).sort((a, b) => sizes[b] - sizes[a]);
    table.append(element("caption", category.name));
    const body = table.createTBody();
    for (const code of most.slice(0, 5)) {
      const row = body.insertRow();
      row.append(element("th", category.classes[code] ?? category.absent, { scope: "row" }));
      for (const text of [count(sizes[code]), percent(sizes[code], total)]) row.append(element("td", text, { className: "number" }));
    }
    if (most.length > 5) body.insertRow().append(element("th", `and ${most.length - 5} more`, { scope: "row" }));
    return table;
  }

  fillComposition() {
    const { categories } = this.data, batch = categories.findIndex((one) => one.heading === "batch");
    for (const list of [this.find("of"), this.find("each")]) {
      list.append(...categories.map((category, at) => element("option", category.name, { value: at })));
      list.addEventListener("change", () => this.compose());
    }
    const column = categories.findIndex((one) => one.heading === "obs column");
    this.find("each").value = [batch, column, categories.length - 1].find((at) => at > 0) ?? 0;
  }

  // Draw the composition of each class of one category by the classes of another, as bars.
  compose() {
    const of = this.data.categories[this.find("of").value], each = this.data.categories[this.find("each").value];
    const counts = [...each.classes, each.absent].map(() => new Array(of.classes.length + 1).fill(0));
    each.of.forEach((row, i) => { if (this.visible(i) && (!this.picked || this.picked[i])) counts[row][of.of[i]]++; });
    const colours = this.palette(of), names = [...of.classes, of.absent], body = element("tbody");
    const sum = (sizes) => sizes.reduce((a, b) => a + b, 0), drawn = new Set();
    counts.forEach((sizes, at) => {
      const total = sum(sizes);
      if (!total) return;
      const row = body.insertRow(), bar = element("div", "", { className: "stack", role: "img" });
      row.append(element("th", each.classes[at] ?? each.absent, { scope: "row" }));
      row.insertCell().append(bar);
      row.append(element("td", count(total), { className: "number" }));
      const parts = [...sizes.keys()].filter((code) => sizes[code]);
      const text = (code) => `${names[code]}: ${percent(sizes[code], total)} (${count(sizes[code])})`;
      bar.setAttribute("aria-label", parts.map(text).join(", "));
      for (const code of parts) {
        const part = bar.appendChild(element("i", "", { title: text(code) }));
        Object.assign(part.style, { flexGrow: sizes[code], background: colours[code] });
        drawn.add(code);
      }
    });
    this.find("bars").replaceChildren(body);
    this.find("key").replaceChildren(...[...drawn].sort((a, b) => a - b).map((code) => {
      const item = element("li"), dot = item.appendChild(element("i"));
      dot.style.background = colours[code];
      item.append(names[code]);
      return item;
    }));
    this.find("whose").textContent = this.picked ? "of the selected cells" : "";
  }

  async search(text) {
    const wanted = plain(this.sought = text);
    if (!wanted) return;
    const found = this.known.get(wanted) ?? [];
    if (found.length === 1) return found[0].act();
    if (found.length) return this.offer(`“${text.trim()}” is more than one thing. Which one?`, found);
    const cell = this.names.findIndex((name) => plain(name) === wanted);
    if (cell < 0) {
      const near = new Set([...this.known].filter(([name]) => name.includes(wanted)).flatMap(([, entries]) => entries));
      return this.offer(`No gene, protein, class or cell is called “${text.trim()}”. ${this.data.absent}`, [...near]);
    }
    if (!this.visible(cell)) { this.find("only").value = ""; this.restrict(""); }
    this.pick(Uint8Array.from(this.names, (_, i) => i === cell));
    this.middle = [this.x[cell], this.y[cell]];
    this.zoom = Math.max(this.zoom, 6);
    this.draw();
  }

  // Show a message, and what the reader may have meant, as buttons.
  offer(message, entries) {
    this.showPicked(message);
    this.find("picked").firstChild.after(...entries.slice(0, 12).map(({ text, act }) => {
      const button = element("button", text, { type: "button" });
      button.onclick = () => { this.showPicked(); act(); };
      return button;
    }));
  }

  // Zoom by a factor, keeping a point of the canvas fixed.
  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.scale();
    this.zoom = clamp(this.zoom * factor, 0.5, 200);
    const moved = 1 / before - 1 / this.scale();
    this.moveTo(this.middle[0] + (x - this.width / 2) * moved, this.middle[1] - (y - this.height / 2) * moved);
  }

  moveTo(x, y) {
    this.middle = [clamp(x, 0, this.extent[1]), clamp(y, 0, this.extent[2])];
    this.draw();
  }

  showAll() {
    this.zoom = 1;
    this.moveTo(this.extent[1] / 2, this.extent[2] / 2);
  }

  hover(x, y) {
    const tip = this.find("tip"), reach = 8 ** 2;
    let nearest = -1, least = reach;
    for (let i = 0; i < this.data.n; i++) {
      if (!this.visible(i)) continue;
      const far = (this.left(i) - x) ** 2 + (this.top(i) - y) ** 2;
      if (far < least) { least = far; nearest = i; }
    }
    tip.hidden = nearest < 0;
    if (nearest < 0) return;
    const lines = this.data.categories.map((one) => `${one.name}: ${one.classes[one.of[nearest]] ?? one.absent}`);
    for (const one of this.data.values) {
      if (!one.of || (one !== this.channel && one.heading !== "cell")) continue;
      const text = one.of[nearest] === MISSING ? "not measured" : `${number(this.value(one, one.of[nearest]))} (${one.unit})`;
      lines.push(`${one.name}: ${text}`);
    }
    tip.replaceChildren(element("b", this.names[nearest]), lines.join("\n"));
    tip.style.left = `${clamp(x + 14, 0, this.width - tip.offsetWidth - 4)}px`;
    const above = y - tip.offsetHeight - 10, most = this.height - tip.offsetHeight - 4;
    tip.style.top = `${y + 18 <= most || above < 0 ? clamp(y + 18, 0, most) : above}px`;
  }

  listen() {
    const { canvas } = this, click = (name, act) => this.find(name).addEventListener("click", act);
    this.find("by").addEventListener("change", (event) => this.colour(Number(event.target.value)));
    this.find("find").addEventListener("change", (event) => this.search(event.target.value));
    // The same text again is no change.
    this.find("find").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.value === this.sought) this.search(event.target.value);
    });
    this.find("only").addEventListener("change", (event) => this.restrict(event.target.value));
    this.find("named").addEventListener("change", () => this.draw());
    click("move", () => this.setLasso(false));
    click("lasso", () => this.setLasso(true));
    click("in", () => this.zoomBy(1.5));
    click("out", () => this.zoomBy(1 / 1.5));
    click("whole", () => this.showAll());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== canvas) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-clamp(event.deltaY, -200, 200) / 300), event.offsetX, event.offsetY);
    }, { passive: false });
    this.listenPointers();
    night.addEventListener("change", () => this.setTheme(night.matches ? DARK : LIGHT));
    // At the size on paper, in CSS pixels (cell_map.css), and sharp.
    addEventListener("beforeprint", () => { this.setTheme(LIGHT); this.drawNow(454, 340, 3); });
    addEventListener("afterprint", () => this.setTheme(night.matches ? DARK : LIGHT));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  listenPointers() {
    const { canvas } = this, touches = new Map();
    let start = [0, 0];
    const gap = () => { const [a, b] = [...touches.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
    canvas.addEventListener("pointerdown", (event) => {
      start = [event.offsetX, event.offsetY];
      touches.set(event.pointerId, start);
      canvas.setPointerCapture(event.pointerId);
      if (touches.size === 1 && (this.lassoing || event.shiftKey)) this.path = [[event.offsetX, event.offsetY]];
      else this.path = null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const { offsetX: x, offsetY: y } = event, last = touches.get(event.pointerId);
      if (!last) return this.hover(x, y);
      this.find("tip").hidden = true;
      const before = touches.size === 2 ? gap() : 0;
      touches.set(event.pointerId, [x, y]);
      if (this.path) { this.path.push([x, y]); this.draw(); }
      else if (before) this.zoomBy(gap() / before, x, y);
      else this.moveTo(this.middle[0] - (x - last[0]) / this.scale(), this.middle[1] + (y - last[1]) / this.scale());
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => {
      touches.delete(event.pointerId);
      const { path } = this;
      this.path = null;
      if (path && path.length > 2) return this.pick(this.inside(path));
      // A finger cannot point without touching: a tap tells of a cell.
      const { offsetX: x, offsetY: y } = event;
      if (event.pointerType === "touch" && Math.hypot(x - start[0], y - start[1]) < 6) this.hover(x, y);
    });
    canvas.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") this.find("tip").hidden = true; });
  }

  // Return which cells are inside a path: those with an odd number of its edges to their right.
  inside(path) {
    return Uint8Array.from({ length: this.data.n }, (_, i) => {
      if (!this.visible(i)) return false;
      const x = this.left(i), y = this.top(i);
      let odd = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
        const [[xa, ya], [xb, yb]] = [path[a], path[b]];
        if (ya > y !== yb > y && x < (xb - xa) * (y - ya) / (yb - ya) + xa) odd = !odd;
      }
      return odd;
    });
  }

  key(event) {
    const step = 40 / this.scale(), [x, y] = this.middle;
    const act = {
      "+": () => this.zoomBy(1.3), "=": () => this.zoomBy(1.3), "-": () => this.zoomBy(1 / 1.3), 0: () => this.showAll(),
      ArrowLeft: () => this.moveTo(x - step, y), ArrowRight: () => this.moveTo(x + step, y),
      ArrowUp: () => this.moveTo(x, y + step), ArrowDown: () => this.moveTo(x, y - step), Escape: () => this.pick(null),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  setLasso(on) {
    this.lassoing = on;
    this.canvas.classList.toggle("lasso", on);
    this.find("lasso").setAttribute("aria-pressed", on);
    this.find("move").setAttribute("aria-pressed", !on);
  }

  setTheme(theme) {
    this.theme = theme;
    this.dress();
    this.showLegend();
    this.compose();
    this.draw();
  }
}

for (const root of document.querySelectorAll(".map")) {
  const map = new CellMap(root, JSON.parse(root.querySelector("script").textContent));
  root.ready = map.open();
}
})();
