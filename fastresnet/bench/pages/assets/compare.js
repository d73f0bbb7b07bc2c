// Filters the cases of all groups, and sorts the rows of a group by the column that is clicked.
(function () {
  var rows = Array.from(document.querySelectorAll(".cases tbody tr"));
  var search = document.getElementById("search"), sure = document.getElementById("sure");

  function filter() {
    var words = search.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
    rows.forEach(function (row) {
      var text = (row.textContent + " " + row.dataset.id).toLowerCase();
      var fits = words.every(function (word) { return text.indexOf(word) >= 0; }) && (!sure.checked || row.dataset.sure === "1");
      row.hidden = !fits;
      shown += fits;
    });
    var narrowed = words.length || sure.checked;
    document.querySelectorAll("details.group").forEach(function (group) {
      var left = group.querySelectorAll("tbody tr:not([hidden])").length;
      group.hidden = !left;
      if (narrowed && left) group.open = true;
    });
    document.getElementById("count").textContent = shown + " of " + rows.length + " cases";
  }
  [search, sure].forEach(function (input) { input.addEventListener("input", filter); });

  function key(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : +cell.dataset.value;
  }

  function sort(table, head, column) {
    var up = head.getAttribute("aria-sort") !== "ascending";
    Array.from(table.tHead.rows[0].cells).forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    Array.from(table.tBodies[0].rows).sort(function (a, b) {
      var x = key(a, column), y = key(b, column);
      if (typeof x === "number" && typeof y === "number") {
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return up ? x - y : y - x;
      }
      return up ? String(x).localeCompare(String(y)) : String(y).localeCompare(String(x));
    }).forEach(function (row) { table.tBodies[0].appendChild(row); });
  }
  document.querySelectorAll(".cases").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      head.tabIndex = 0;
      head.addEventListener("click", function () { sort(table, head, column); });
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(table, head, column); }
      });
    });
  });
  filter();
})();
