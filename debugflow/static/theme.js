// Dark or light as the system is. Loaded in the head, before anything is painted, so that no page
// flashes in the other one; and `js` marks the page for what only works with scripts.
// The page of the API goes by the class `dark-mode`.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function follow() {
    document.documentElement.setAttribute("data-bs-theme", dark.matches ? "dark" : "light");
    document.documentElement.classList.toggle("dark-mode", dark.matches);
  }
  follow();
  dark.addEventListener("change", follow);
  document.documentElement.classList.add("js");
})();
