// Small conveniences; every page works without them.
(function () {
  "use strict";

  function copied(button) {
    var before = button.getAttribute("aria-label");
    button.classList.add("copied");
    button.setAttribute("aria-label", "Copied");
    setTimeout(function () {
      button.classList.remove("copied");
      button.setAttribute("aria-label", before);
    }, 1500);
  }

  // Without TLS the clipboard is closed to pages, except on localhost: select the text instead.
  function select(element) {
    var range = document.createRange();
    range.selectNodeContents(element);
    var selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    var source = document.getElementById(button.getAttribute("data-copy"));
    if (navigator.clipboard) {
      navigator.clipboard.writeText(source.textContent.trim()).then(
        function () { copied(button); },
        function () { select(source); }
      );
    } else {
      select(source);
    }
  });

  // One click, one deed: a second click on the way would only be refused. The form is free again
  // when the browser comes back to it.
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("form[data-sent]").forEach(function (form) {
      delete form.dataset.sent;
    });
  });

  // The free field of a group of chips belongs to the chip "other".
  document.addEventListener("input", function (event) {
    var other = event.target.getAttribute("data-chooses");
    if (other && event.target.value) document.getElementById(other).checked = true;
  });

  // An open menu closes on a click elsewhere and on Escape.
  document.addEventListener("click", function (event) {
    document.querySelectorAll("details.menu[open]").forEach(function (menu) {
      if (!menu.contains(event.target)) menu.open = false;
    });
  });
  document.addEventListener("keydown", function (event) {
    var menu = event.key === "Escape" && document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // A poll that was sent on to the sign-in page must not be painted into this one.
  document.addEventListener("htmx:beforeSwap", function (event) {
    var answered = event.detail.xhr.responseURL;
    if (answered && new URL(answered).pathname === "/sign-in/") {
      event.detail.shouldSwap = false;
      window.location.reload();
    }
  });
})();
