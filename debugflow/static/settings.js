// The time zone that this browser is in, offered; and what time it is in the one that is typed.
(function () {
  "use strict";
  var form = document.getElementById("zone-form");
  var field = document.getElementById("time-zone");
  var now = document.getElementById("zone-now");
  var offer = document.getElementById("zone-offer");
  var saved = form.dataset.saved;
  var detected = Intl.DateTimeFormat().resolvedOptions().timeZone;
  // The browser's clock may be wrong, so all is reckoned from the server's time in data-now.
  var offset = Date.parse(document.documentElement.getAttribute("data-now")) - Date.now();

  function told(zone) {
    try {
      return new Intl.DateTimeFormat("en-GB", {
        timeZone: zone, weekday: "short", day: "2-digit", month: "short", year: "numeric",
        hour: "2-digit", minute: "2-digit", second: "2-digit"
      }).format(new Date(Date.now() + offset)).replace(",", "") + " " + zone;
    } catch (error) {
      return "";
    }
  }

  function tick() {
    var words = told(field.value.trim()) || told(saved);
    if (words && words !== now.textContent) now.textContent = words;
  }

  tick();
  setInterval(tick, 1000);
  field.addEventListener("input", tick);
  // So that typing finds another one at once.
  field.addEventListener("focus", function () { field.select(); });

  if (detected && detected !== saved) {
    document.getElementById("zone-detected").textContent = detected;
    offer.hidden = false;
    document.getElementById("zone-use").addEventListener("click", function () {
      field.value = detected;
      form.requestSubmit();
    });
  }
})();
