(name) => {
  const root = document.getElementById(name);
  const table = root.querySelector("table"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row) => ({
    row, cells: [...row.cells].map((cell) => cell.textContent), text: row.textContent.toLowerCase(),
  }));
  const order = new Intl.Collator("en", { numeric: true }).compare;
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const menus = heads.flatMap((head, column) => "filter" in head.dataset
    ? [{ column, title: head.textContent, select: make("select") }] : []);
  const search = make("input", { type: "search", placeholder: "words, in any column" });
  const count = make("output");
  const form = make("form", {},
    ...menus.map(({ title, select }) => make("label", {}, make("span", { textContent: title }), select)),
    make("label", { className: "browse-search" }, make("span", { textContent: "search" }), search),
    make("button", { type: "reset", textContent: "Reset" }), count);
  count.setAttribute("aria-live", "polite");

  // A menu offers what the other menus and the search leave, with its number of rows.
  const passes = (item, words, except) => words.every((word) => item.text.includes(word))
    && menus.every((menu) => menu === except || !menu.select.value
      || item.cells[menu.column] === menu.select.value);
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = menus.map((menu) => {
      const numbers = new Map(menu.select.value ? [[menu.select.value, 0]] : []);
      for (const item of rows) if (passes(item, words, menu)) {
        const value = item.cells[menu.column];
        numbers.set(value, (numbers.get(value) ?? 0) + 1);
      }
      return numbers;
    });
    menus.forEach(({ select }, i) => {
      const chosen = select.value, values = [...found[i].keys()].sort(order);
      select.replaceChildren(new Option("all", ""),
        ...values.map((v) => new Option(`${v} (${found[i].get(v)})`, v, false, v === chosen)));
    });
    let shown = 0;
    for (const item of rows) shown += !(item.row.hidden = !passes(item, words));
    count.value = `${shown} of ${rows.length} rows`;
  };

  heads.forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => (up ? 1 : -1) * order(a.cells[column], b.cells[column]));
      body.append(...rows.map((item) => item.row));
    });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("input", update);
  root.prepend(form);
  update();
}
