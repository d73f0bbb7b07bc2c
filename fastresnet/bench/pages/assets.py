"""What the comparison page needs beside the package's own look: the style of its table, and the script that
sorts and filters."""

STYLE = """
<style>
.tools { display: flex; flex-wrap: wrap; gap: .6rem; margin: .6rem 0; align-items: center; }
.tools input[type=search], .tools select { font: inherit; padding: .35rem .6rem; border: 1px solid
var(--rule);
  border-radius: .4rem; background: var(--card); color: var(--text); min-width: 0; }
.tools input[type=search] { flex: 1 1 12rem; }
#cases { width: 100%; } #cases th { cursor: pointer; white-space: nowrap; user-select: none; }
#cases th[aria-sort=ascending]::after { content: " \\25B2"; } #cases th[aria-sort=descending]::after {
# content: " \\25BC"; }
#cases td { overflow-wrap: anywhere; } #cases td.n { white-space: nowrap; }
.faster { color: var(--c2); font-weight: 600; } .slower { color: var(--c1); font-weight: 600; } .noise, .none
{ color: var(--soft); } .bar { position: relative; height: .5rem; min-width: 6rem; background: var(--card);
border-radius: .25rem; margin-top: .25rem; } .bar i { position: absolute; top: 0; bottom: 0; border-radius:
.25rem; background: currentColor; min-width: 3px; } .bar b { position: absolute; top: -.15rem; bottom:
-.15rem; left: 50%; border-left: 1px solid var(--soft); } .facts { table-layout: fixed; width: 100%; } .facts
th { width: 8.5rem; } .facts td { overflow-wrap: anywhere; } @media (max-width: 46rem) {
  #cases thead { position: absolute; left: -9999px; }
  #cases, #cases tbody, #cases tr, #cases td { display: block; width: 100%; }
  #cases tr { background: var(--card); border-radius: .6rem; padding: .5rem .7rem; margin: .6rem 0; }
  #cases tr[hidden] { display: none; }
  #cases td { border: 0; padding: .1rem 0; text-align: left; display: flex; gap: .8rem; justify-content:
  # space-between; }
  #cases td.n { white-space: normal; text-align: right; } #cases td:empty { display: none; }
  #cases td::before { content: attr(data-label); color: var(--soft); flex: 0 0 auto; max-width: 45%; }
  #cases td.id { font-weight: 600; } #cases td.id::before { display: none; } #cases td::before { text-align:
  # left; } .bar { background: var(--back); }
  .facts th { width: 6rem; }
}
</style>
"""
SCRIPT = """
<script>
(function () {
  var table = document.getElementById("cases"), body = table.tBodies[0], rows = Array.from(body.rows);
  var search = document.getElementById("search"), part = document.getElementById("part"), sure =
  document.getElementById("sure"); function filter() {
    var words = search.value.toLowerCase().split(/\\s+/).filter(Boolean), shown = 0;
    rows.forEach(function (row) {
      var text = row.textContent.toLowerCase();
      var fits = words.every(function (w) { return text.indexOf(w) >= 0; }) && (!part.value ||
      row.dataset.part === part.value)
        && (!sure.checked || row.dataset.sure === "1");
      row.hidden = !fits; shown += fits;
    });
    document.getElementById("count").textContent = shown + " of " + rows.length + " cases";
  }
  [search, part, sure].forEach(function (x) { x.addEventListener("input", filter); });
  function sort(head, column) {
    var up = head.getAttribute("aria-sort") !== "ascending";
    Array.from(table.tHead.rows[0].cells).forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    var key = function (row) { var c = row.cells[column]; return c.dataset.value === undefined ? c.textContent
    : +c.dataset.value; }; rows.sort(function (a, b) {
      var x = key(a), y = key(b);
      if (typeof x === "number" && typeof y === "number") {
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return up ? x - y : y - x;
      }
      return up ? String(x).localeCompare(String(y)) : String(y).localeCompare(String(x));
    });
    rows.forEach(function (row) { body.appendChild(row); });
  }
  Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
    head.tabIndex = 0;
    head.addEventListener("click", function () { sort(head, column); });
    head.addEventListener("keydown", function (e) { if (e.key === "Enter" || e.key === " ") {
    e.preventDefault(); sort(head, column); } });
  });
  filter();
})();
</script>
"""
