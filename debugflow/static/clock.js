// Countdowns and "12 min ago" that go on by themselves, without asking the server.
// The browser's clock may be wrong, so all is reckoned from the server's time in data-now.
(function () {
  "use strict";
  var offset = 0;

  function settle(element) {
    var now = Date.parse(element.getAttribute("data-now") || "");
    if (!isNaN(now)) offset = now - Date.now();
  }

  function two(number) {
    return (number < 10 ? "0" : "") + number;
  }

  function left(seconds) {
    if (seconds <= 0) return "time is up";
    var hours = Math.floor(seconds / 3600);
    var minutes = Math.floor((seconds % 3600) / 60);
    if (hours >= 48) return Math.round(hours / 24) + " days";
    return (hours ? hours + ":" + two(minutes) : minutes) + ":" + two(seconds % 60);
  }

  // The same steps as approvals.sentences.apart.
  function apart(seconds) {
    if (seconds < 45) return "a moment";
    if (seconds < 2 * 3600) return Math.max(1, Math.round(seconds / 60)) + " min";
    if (seconds < 2 * 86400) return Math.round(seconds / 3600) + " h";
    return Math.round(seconds / 86400) + " days";
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    var now = Date.now() + offset;
    document.querySelectorAll("time[data-until]").forEach(function (element) {
      var seconds = Math.ceil((Date.parse(element.dateTime) - now) / 1000);
      write(element, left(seconds));
      element.classList.toggle("soon", seconds <= 300);
    });
    document.querySelectorAll("time[data-relative]").forEach(function (element) {
      var seconds = (Date.parse(element.dateTime) - now) / 1000;
      var words = apart(Math.abs(seconds));
      var how = element.getAttribute("data-relative");
      if (how !== "bare") {
        var over = how === "due" ? "at once" : words + " ago";
        words = seconds > 0 ? "in " + words : over;
      }
      write(element, words);
    });
  }

  settle(document.documentElement);
  tick();
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", tick);
  document.addEventListener("htmx:afterSettle", function () {
    document.querySelectorAll("[data-now]").forEach(settle);
    tick();
  });
})();
