// The queue by keyboard, its selection, and its list kept up to date without moving anything that
// somebody points at, has selected or has focused. Without scripts it is links and forms.
(function () {
  "use strict";
  var POLL = 8000; // milliseconds between two looks for what is new
  var SETTLE = 150; // milliseconds that a row stays the chosen one before it is opened
  var list = document.getElementById("queue-list");
  if (!list) return;
  var waiting = null; // a newer list that is not shown yet
  var opening = 0;
  var lastPick = null;

  // The answer to a form that could not be used has the form's address. Going back to it, or loading
  // it again, must not ask whether to send the form once more.
  var here = list.closest(".queue-page").dataset.here;
  if (window.location.pathname !== new URL(here, window.location.href).pathname) {
    window.history.replaceState(null, "", here);
  }

  function all(selector, within) {
    return Array.prototype.slice.call((within || document).querySelectorAll(selector));
  }

  function pane() { return document.getElementById("pane"); }
  function rows() { return all(".queue-row:not(.is-gone)", list); }
  function link(row) { return row.querySelector(".cover"); }
  function picks() { return all(".pick:not(:disabled)", list); }
  function picked() { return picks().filter(function (box) { return box.checked; }); }

  function say(words) {
    var place = document.getElementById("queue-words");
    place.textContent = words;
  }

  function count(number, one, many) {
    return number + " " + (number === 1 ? one : many);
  }

  // Moving

  function current() {
    var focused = document.activeElement.closest && document.activeElement.closest(".queue-row");
    if (focused) return focused;
    var shown = list.querySelector('.cover[aria-current="true"]');
    return shown && shown.closest(".queue-row");
  }

  function choose(row) {
    all(".cover[aria-current]", list).forEach(function (one) {
      one.removeAttribute("aria-current");
    });
    if (row) link(row).setAttribute("aria-current", "true");
  }

  function move(step) {
    var there = rows();
    if (!there.length) return;
    var at = there.indexOf(current());
    var row = there[at < 0 ? 0 : Math.min(there.length - 1, Math.max(0, at + step))];
    choose(row);
    link(row).focus();
    row.scrollIntoView({ block: "nearest" });
    clearTimeout(opening);
    opening = setTimeout(function () {
      if (pane() && pane().dataset.request !== row.dataset.request) link(row).click();
    }, SETTLE);
  }

  // Deciding about the one that is shown, or going to what decides all of the selected

  function decision(name) {
    var shown = pane();
    if (!shown) return null;
    var row = list.querySelector('.cover[aria-current="true"]');
    if (row && row.closest(".queue-row").dataset.request !== shown.dataset.request) {
      say("Still loading. Press it again.");
      return null;
    }
    var button = shown.querySelector('[data-decides="' + name + '"]');
    if (!button) say("You cannot decide this one now.");
    return button;
  }

  function approve(event) {
    if (event.repeat) return;
    if (picked().length) return document.querySelector('[data-bulk="approve"]').focus();
    var button = decision("approve");
    if (button && button.form.querySelector(".less[open]")) return say("Approve with less by its own button, or fold it first.");
    if (button) button.click();
  }

  function deny(event) {
    if (event.repeat) return;
    if (picked().length) return document.getElementById("bulk-comment").focus();
    var button = decision("deny");
    if (button) button.form.elements.comment.focus();
  }

  document.addEventListener("keydown", function (event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    var form = event.target.name === "comment" && event.target.form;
    var button = form && form.querySelector('[data-decides="deny"], [data-bulk="deny"]');
    if (!button) return;
    event.preventDefault();
    button.click();
  });

  // Selecting

  function pick(box, checked, ranging) {
    var boxes = picks();
    var from = ranging ? boxes.indexOf(lastPick) : -1;
    var to = boxes.indexOf(box);
    var low = from < 0 ? to : Math.min(from, to);
    var high = Math.max(from, to);
    for (var i = low; i <= high; i += 1) boxes[i].checked = checked;
    lastPick = box;
    tellPicked();
  }

  function tellPicked() {
    var number = picked().length;
    document.getElementById("bulk-title").textContent =
      number ? "Decide " + count(number, "request", "requests") + " together"
        : "Decide the selected together";
    say(number ? count(number, "request", "requests") + " selected" : "Nothing selected");
  }

  function toggle(event) {
    if (event.repeat) return;
    var row = current();
    var box = row && row.querySelector(".pick:not(:disabled)");
    if (!box) return say("This one cannot be selected.");
    pick(box, event.shiftKey || !box.checked, event.shiftKey);
  }

  list.addEventListener("click", function (event) {
    if (event.target.matches(".pick")) pick(event.target, event.target.checked, event.shiftKey);
  });

  document.addEventListener("click", function (event) {
    if (!event.target.closest("[data-unselect]")) return;
    picked().forEach(function (box) { box.checked = false; });
    lastPick = null;
    tellPicked();
  });

  // What htmx put beside the list

  document.addEventListener("htmx:afterSettle", function (event) {
    var shown = event.target.id === "pane" ? event.target : null;
    if (!shown) return;
    choose(document.getElementById("row-" + shown.dataset.request));
    if (shown.getBoundingClientRect().top < 0) shown.scrollIntoView();
  });

  document.addEventListener("htmx:responseError", function (event) {
    if (event.target.closest && event.target.closest("#queue-list")) {
      say("That request could not be shown. Reload the page.");
    }
  });

  // Keeping the list up to date

  function held() {
    return list.matches(":hover") || Boolean(document.querySelector("dialog[open]"));
  }

  function look() {
    if (document.hidden) return;
    var address = list.dataset.poll + "&seen=" + list.dataset.seen;
    fetch(address, { headers: { "X-Requested-With": "fetch" } }).then(function (answer) {
      if (answer.redirected) return window.location.reload();
      if (answer.status !== 200) return null;
      return answer.text().then(take);
    }).catch(function () { /* The next look comes soon; what is shown says since when. */ });
  }

  function take(text) {
    var parsed = new DOMParser().parseFromString(text, "text/html");
    waiting = parsed.getElementById("queue-list");
    if (!waiting) return;
    list.dataset.seen = waiting.dataset.seen;
    if (held()) offer(); else show();
  }

  function fresh() {
    return all(".queue-row", waiting).filter(function (row) {
      return !document.getElementById(row.id);
    });
  }

  function offer() {
    var number = fresh().length;
    var button = list.querySelector("[data-news]");
    button.parentNode.hidden = !number;
    button.textContent = "Show " + count(number, "new request", "new requests");
    if (number) say(count(number, "new request", "new requests"));
  }

  function show() {
    var newer = waiting;
    if (!newer) return;
    if (!list.querySelector(".queue-rows")) {
      if (newer.querySelector(".queue-rows")) window.location.reload();
      return;
    }
    var anchor = rows().find(function (row) { return row.getBoundingClientRect().bottom > 0; });
    var before = anchor && anchor.getBoundingClientRect().top;
    var number = fresh().length;
    merge(newer);
    if (anchor) scrolled().scrollTop += anchor.getBoundingClientRect().top - before;
    document.getElementById("queue-head").outerHTML = newer.dataset.head;
    list.querySelector("[data-news]").parentNode.hidden = true;
    waiting = null;
    if (number) say(count(number, "new request", "new requests"));
  }

  function scrolled() {
    var side = list.closest(".queue-side");
    return side.scrollHeight > side.clientHeight ? side : document.scrollingElement;
  }

  function merge(newer) {
    var kept = all(".queue-row", newer);
    var ids = kept.map(function (row) { return row.id; });
    rows().forEach(function (row) { if (ids.indexOf(row.id) < 0) gone(row); });
    var last = null;
    kept.forEach(function (row) {
      var old = document.getElementById(row.id);
      if (old) change(old, row); else old = add(row, last);
      last = old;
    });
  }

  function add(row, after) {
    row.classList.add("is-new");
    if (after) after.after(row); else list.querySelector(".queue-rows").prepend(row);
    window.htmx.process(row);
    return row;
  }

  function gone(row) {
    var box = row.querySelector(".pick");
    row.classList.add("is-gone");
    row.querySelector(".row-side").textContent = "no longer in this list";
    if (box) {
      box.checked = false;
      box.disabled = true;
      tellPicked();
    }
  }

  // Another scope under a selected row would be approved unread.
  function change(old, row) {
    var was = old.querySelector(".pick");
    var is = row.querySelector(".pick");
    var changed = was && is ? was.value !== is.value : Boolean(was) !== Boolean(is);
    if (changed || old.classList.contains("is-gone")) {
      old.querySelector(".pick-place").replaceWith(row.querySelector(".pick-place"));
      old.classList.remove("is-gone");
      old.classList.add("is-new");
      old.classList.toggle("is-changed", changed);
      tellPicked();
    }
    var focused = old.querySelector(".row-grid").contains(document.activeElement);
    var open = link(old).getAttribute("aria-current");
    old.querySelector(".row-grid").replaceWith(row.querySelector(".row-grid"));
    link(old).removeAttribute("aria-current");
    if (open) link(old).setAttribute("aria-current", open);
    window.htmx.process(old);
    if (focused) link(old).focus();
  }

  list.addEventListener("click", function (event) {
    if (event.target.closest("[data-news]")) show();
  });
  list.addEventListener("mouseleave", function () { if (waiting) show(); });
  setInterval(look, POLL);
  document.addEventListener("visibilitychange", look);

  var keys = window.debugflowKeys;
  keys.on("j", function () { move(1); });
  keys.on("k", function () { move(-1); });
  keys.on("a", approve);
  keys.on("d", deny);
  keys.on("x", toggle);
  keys.on("X", toggle);

  var result = document.getElementById("results");
  var problem = document.querySelector("[aria-invalid]");
  if (problem) problem.focus(); else if (result) result.focus();
  if (picked().length) tellPicked();
  var opened = list.querySelector('.cover[aria-current="true"]');
  if (opened && window.matchMedia("(min-width: 901px)").matches) {
    var box = list.closest(".queue-side");
    var row = opened.closest(".queue-row");
    box.scrollTop = Math.max(0, row.offsetTop - box.clientHeight / 2);
  }
})();
