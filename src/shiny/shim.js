(function (w) {
  "use strict";
  if (w.__bowline) return;
  w.__bowline = { mode: "reconnect" };
  function createSocket() {
    var at = w.location, path = at.pathname;
    if (path.charAt(path.length - 1) !== "/") path += "/";
    var scheme = at.protocol === "https:" ? "wss:" : "ws:";
    var socket = new w.WebSocket(scheme + "//" + at.host + path + "websocket/");
    socket.binaryType = "arraybuffer";
    socket.allowReconnect = true;
    socket.addEventListener("close", function (e) {
      var over = e.code === 1000 || (e.code >= 4500 && e.code < 4600);
      if (e.wasClean && over) socket.allowReconnect = false;
    });
    return socket;
  }
  function install(shiny) {
    if (shiny && !shiny.createSocket) shiny.createSocket = createSocket;
  }
  var shiny = w.Shiny;
  if (shiny) return install(shiny);
  Object.defineProperty(w, "Shiny", {
    configurable: true,
    enumerable: true,
    get: function () { return shiny; },
    set: function (value) { shiny = value; install(value); }
  });
})(window);
