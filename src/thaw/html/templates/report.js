"use strict";
const byId = id => document.getElementById(id);

function openCells() {
  const buttons = document.querySelectorAll("button[aria-controls^=cell-]");
  for (const button of buttons)
    button.addEventListener("click", () => {
      const opens = button.getAttribute("aria-expanded") === "false";
      for (const other of buttons) {
        const isOpen = opens && other === button;
        other.setAttribute("aria-expanded", isOpen);
        byId(other.getAttribute("aria-controls")).hidden = !isOpen;
      }
      if (opens) byId(button.getAttribute("aria-controls")).scrollIntoView({ block: "nearest" });
    });
}

function moveThreshold({ curves, splits, frame }) {
  const choice = byId("class"), slider = byId("slider"), drawing = byId("curves");
  const metrics = ["recall", "false-positive-rate", "precision"];
  const x = value => frame.left + value * (frame.right - frame.left);
  const y = value => frame.bottom + value * (frame.top - frame.bottom);
  const curve = () => curves[choice.selectedIndex];
  // Numerator and denominator of each metric at the threshold with this index.
  const ratios = (counts, index) => {
    const truePositives = counts.true_positives[index], falsePositives = counts.false_positives[index];
    return [
      [truePositives, counts.positives],
      [falsePositives, counts.negatives],
      [truePositives, truePositives + falsePositives],
    ];
  };
  const add = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    drawing.append(node);
  };
  const addVertical = (index, cssClass) => {
    const left = x(curve().thresholds[index]);
    add("line", { class: cssClass, x1: left, x2: left, y1: frame.bottom, y2: frame.top });
  };

  function draw() {
    const { thresholds, in_use: inUse, splits: counts } = curve(), selected = Number(slider.value);
    drawing.replaceChildren();
    for (const split of Object.keys(splits))
      metrics.forEach((metric, number) => {
        const points = thresholds.map((threshold, index) => [x(threshold), ...ratios(counts[split], index)[number]])
          .filter(([, , whole]) => whole).map(([left, part, whole]) => `${left.toFixed(1)},${y(part / whole).toFixed(1)}`);
        add("polyline", { class: `${metric} ${split === "val" && splits.test ? "val" : ""}`, points: points.join(" ") });
      });
    if (inUse !== null) {
      addVertical(inUse, "in-use");
      const left = x(thresholds[inUse]), isRight = left > (frame.left + frame.right) / 2;
      add("text", { class: "in-use-label", x: left, y: frame.top - 8, "text-anchor": isRight ? "end" : "start" }, "in use");
    }
    addVertical(selected, "selected");
    byId("value").textContent = thresholds[selected].toFixed(3);
    slider.setAttribute("aria-valuetext", thresholds[selected].toFixed(3));
    byId("effect").tBodies[0].replaceChildren(...Object.keys(splits).map(split => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = splits[split];
      row.append(head, ...ratios(counts[split], selected).map(([part, whole]) => {
        const cell = document.createElement("td"), detail = document.createElement("small");
        cell.className = "number";
        cell.textContent = whole ? percent(part / whole) : "-";
        detail.textContent = `${part} of ${whole}`;
        cell.append(detail);
        return cell;
      }));
      return row;
    }));
  }

  function reset() {
    const { thresholds, in_use: inUse } = curve();
    slider.max = thresholds.length - 1;
    slider.value = inUse ?? Math.round(slider.max / 2);
    byId("reset").hidden = inUse === null;
    draw();
  }

  choice.append(...curves.map(({ name }) => new Option(name)));
  choice.addEventListener("change", reset);
  slider.addEventListener("input", draw);
  byId("reset").addEventListener("click", reset);
  reset();
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
      byId("copy").textContent = "selected: press Ctrl+C to copy";
    }
  });
}

openCells();
moveThreshold(JSON.parse(byId("threshold-data").textContent));
copyRecipe();
