// Keys that work on every page, and the one place where a page adds its own. Never while typing.
(function () {
  "use strict";
  var PREFIX_FOR = 1500; // milliseconds that "g" waits for its second letter
  var own = {};
  var prefixed = 0;

  function typing(element) {
    if (element.isContentEditable) return true;
    if (element.matches("textarea, select")) return true;
    return element.matches("input:not([type=checkbox]):not([type=radio])");
  }

  function go(key) {
    var link = document.querySelector('[data-go="' + CSS.escape(key) + '"]');
    if (link) link.click();
    return Boolean(link);
  }

  function search() {
    var field = document.querySelector("[data-search]");
    if (!field) return false;
    field.focus();
    field.select();
    return true;
  }

  function help() {
    var list = document.getElementById("keys");
    if (list && !list.open) list.showModal();
    return Boolean(list);
  }

  function pressed(event) {
    if (Date.now() < prefixed) {
      prefixed = 0;
      return go(event.key);
    }
    if (event.key === "g") {
      prefixed = Date.now() + PREFIX_FOR;
      return true;
    }
    if (event.key === "/") return search();
    if (event.key === "?") return help();
    return own[event.key] ? own[event.key](event) !== false : false;
  }

  document.addEventListener("keydown", function (event) {
    if (event.defaultPrevented || event.isComposing) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (pressed(event)) event.preventDefault();
  });

  window.debugflowKeys = {
    on: function (key, act) { own[key] = act; }
  };
})();
