"use strict";
const byId = id => document.getElementById(id);

function openCells() {
  for (const button of document.querySelectorAll("button[aria-controls^=cell-]"))
    button.addEventListener("click", () => {
      const opens = button.getAttribute("aria-expanded") === "false";
      for (const other of document.querySelectorAll("button[aria-controls^=cell-]")) {
        const isThis = opens && other === button;
        other.setAttribute("aria-expanded", isThis);
        byId(other.getAttribute("aria-controls")).hidden = !isThis;
      }
      if (opens) byId(button.getAttribute("aria-controls")).scrollIntoView({ block: "nearest" });
    });
}

function moveThresholds({ curves, sets, frame }) {
  const choice = byId("class"), slider = byId("slider"), drawing = byId("curves");
  const kinds = ["recall", "alarms", "precision"];
  const x = value => frame.left + value * (frame.right - frame.left);
  const y = value => frame.bottom + value * (frame.top - frame.bottom);
  const curve = () => curves[choice.selectedIndex];
  const shares = (counts, at) => {
    const called = counts.found[at] + counts.alarms[at];
    return [[counts.found[at], counts.images], [counts.alarms[at], counts.others], [counts.found[at], called]];
  };
  const add = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    drawing.append(node);
  };
  const upright = (at, kind) => {
    const place = x(curve().thresholds[at]);
    add("line", { class: kind, x1: place, x2: place, y1: frame.bottom, y2: frame.top });
  };

  function draw() {
    const { thresholds, chosen, sets: counts } = curve(), at = Number(slider.value);
    drawing.replaceChildren();
    for (const set of Object.keys(sets))
      kinds.forEach((kind, index) => {
        const points = thresholds.map((threshold, place) => [x(threshold), ...shares(counts[set], place)[index]])
          .filter(([, , whole]) => whole).map(([left, part, whole]) => `${left.toFixed(1)},${y(part / whole).toFixed(1)}`);
        add("polyline", { class: `${kind} ${set === "val" && sets.test ? "val" : ""}`, points: points.join(" ") });
      });
    if (chosen !== null) {
      upright(chosen, "in-use");
      const place = x(thresholds[chosen]), isRight = place > (frame.left + frame.right) / 2;
      add("text", { class: "in-use-name", x: place, y: frame.top - 8, "text-anchor": isRight ? "end" : "start" }, "in use");
    }
    upright(at, "at");
    byId("value").textContent = thresholds[at].toFixed(3);
    slider.setAttribute("aria-valuetext", thresholds[at].toFixed(3));
    byId("effect").tBodies[0].replaceChildren(...Object.keys(sets).map(set => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = sets[set];
      row.append(head, ...shares(counts[set], at).map(([part, whole]) => {
        const cell = document.createElement("td"), detail = document.createElement("small");
        cell.className = "number";
        cell.textContent = whole ? `${(100 * part / whole).toFixed(1)} %` : "-";
        detail.textContent = `${part} of ${whole}`;
        cell.append(detail);
        return cell;
      }));
      return row;
    }));
  }

  function choose() {
    const { thresholds, chosen } = curve();
    slider.max = thresholds.length - 1;
    slider.value = chosen ?? Math.round(slider.max / 2);
    byId("in-use").hidden = chosen === null;
    draw();
  }

  choice.append(...curves.map(({ name }) => new Option(name)));
  choice.addEventListener("change", choose);
  slider.addEventListener("input", draw);
  byId("in-use").addEventListener("click", choose);
  choose();
}

function copyRecipe() {
  byId("copy").addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(byId("recipe"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    try {
      await navigator.clipboard.writeText(byId("recipe").textContent);
      byId("copy").textContent = "copied";
    } catch {
      byId("copy").textContent = "selected: copy it with the keyboard";
    }
  });
}

openCells();
moveThresholds(JSON.parse(byId("moving").textContent));
copyRecipe();
