// The admin is as dark or light as the rest of the site, whatever unfold kept; what others' scripts
// make is named for those who do not see it; what is to be pasted elsewhere is copied; and stages are
// moved by dragging or with buttons, which write the numbers that are sent.
(function () {
  "use strict";
  window.localStorage.removeItem("adminTheme");
  document.documentElement.classList.add("desk-scripts");

  // Empty stages have no number, and the others none for them.
  function number(list) {
    var place = 0;
    list.querySelectorAll("[data-stage]").forEach(function (stage) {
      if (stage.querySelector("input[name$='-name']").value) {
        place += 1;
        stage.querySelector("input[name$='-ORDER']").value = place;
      }
    });
  }

  function move(list, stage, before) {
    list.insertBefore(stage, before);
    number(list);
  }

  function nameFields() {
    document.querySelectorAll(".select2-search__field").forEach(function (field) {
      var select = field.closest(".select2").previousElementSibling;
      var label = select && select.labels[0];
      if (label) field.setAttribute("aria-label", label.textContent.trim());
    });
  }

  window.addEventListener("load", function () {
    document.querySelectorAll("#nav-sidebar .simplebar-content-wrapper").forEach(function (menu) {
      menu.setAttribute("aria-label", "Menu");
    });
  });

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    var source = document.getElementById(button.dataset.copy);
    window.getSelection().selectAllChildren(source);
    if (!navigator.clipboard) return;
    navigator.clipboard.writeText(source.textContent).then(function () {
      button.textContent = "Copied";
    });
  });

  document.addEventListener("DOMContentLoaded", function () {
    var list = document.querySelector("[data-stages]");
    var dragged = null;
    // Called after what makes the fields, which was registered before.
    if (window.django && window.django.jQuery) window.django.jQuery(nameFields);
    if (!list) return;
    list.addEventListener("click", function (event) {
      var button = event.target.closest("[data-move]");
      if (!button) return;
      event.preventDefault();
      var stage = button.closest("[data-stage]");
      if (button.dataset.move === "up" && stage.previousElementSibling) {
        move(list, stage, stage.previousElementSibling);
      } else if (button.dataset.move === "down" && stage.nextElementSibling) {
        move(list, stage, stage.nextElementSibling.nextElementSibling);
      }
      button.focus();
    });
    list.addEventListener("dragstart", function (event) {
      dragged = event.target.closest("[data-stage]");
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", "");
      event.dataTransfer.setDragImage(dragged, 0, 0);
      dragged.classList.add("dragged");
    });
    list.addEventListener("dragover", function (event) {
      var over = event.target.closest("[data-stage]");
      if (!dragged || !over) return;
      event.preventDefault();
      if (over === dragged) return;
      var box = over.getBoundingClientRect();
      var after = event.clientY > box.top + box.height / 2;
      list.insertBefore(dragged, after ? over.nextElementSibling : over);
    });
    list.addEventListener("drop", function (event) { event.preventDefault(); });
    list.addEventListener("dragend", function () {
      dragged.classList.remove("dragged");
      dragged = null;
      number(list);
    });
  });
})();
