(function (w, mode) {
  "use strict";
  if (w.__bowline) return;
  w.__bowline = { mode: mode };
  var PROTOCOL = "bowline.resume.1", BEAT = 15000, ANSWER = 10000, MOST = 1 << 24, PART = 1 << 15;
  function address() {
    var at = w.location, path = at.pathname;
    if (path.charAt(path.length - 1) !== "/") path += "/";
    return (at.protocol === "https:" ? "wss:" : "ws:") + "//" + at.host + path + "websocket/";
  }
  function isOver(e) {
    return e.wasClean && (e.code === 1000 || e.code === 1009 || (e.code >= 4500 && e.code < 4600));
  }
  function reconnecting() {
    var socket = new w.WebSocket(address());
    socket.binaryType = "arraybuffer";
    socket.allowReconnect = true;
    socket.addEventListener("close", function (e) {
      if (isOver(e)) socket.allowReconnect = false;
    });
    return socket;
  }
  // Looks like a WebSocket; below it are as many as are needed, one after the other.
  function resuming() {
    var self = new w.EventTarget(), ws = null, id = "", hold = 0, isPlain = false, isLive = false;
    var lost = 0, tries = 0, heard = 0, asked = 0, timer, beat, later, soon, hint;
    var got = 0, told = 0, gotBytes = 0, acked = 0, queue = [], bytes = 0, isPart = false, parts = [];
    ["CONNECTING", "OPEN", "CLOSING", "CLOSED"].forEach(function (name, n) { self[name] = n; });
    self.url = address();
    self.protocol = self.extensions = "";
    self.readyState = self.bufferedAmount = 0;
    self.binaryType = "arraybuffer";
    self.allowReconnect = true;
    self.onopen = self.onmessage = self.onclose = self.onerror = null;
    self.send = function (data) {
      if (!self.readyState) throw new w.DOMException("Still in CONNECTING state.", "InvalidStateError");
      if (self.readyState > 1) return;
      if (isPlain) return ws.send(data);
      queue.push(data);
      bytes += size(data);
      if (isLive) transmit(data);
      else if (bytes > MOST) finish(1006, "", false);
    };
    self.close = function (code, reason) {
      if (self.readyState > 1) return;
      self.readyState = 2;
      if (!ws) return finish(1006, "", false);
      ws.close(code === undefined ? 1000 : code, reason || "");
    };
    function size(data) {
      return typeof data === "string" ? data.length : data.byteLength || data.size || 0;
    }
    function emit(e) {
      self.dispatchEvent(e);
      var on = self["on" + e.type];
      if (typeof on === "function") on.call(self, e);
    }
    function transmit(data) {
      var isText = typeof data === "string", all = size(data), at = 0, end;
      if (w.ArrayBuffer.isView(data)) data = new w.Uint8Array(data.buffer, data.byteOffset, all);
      for (; all - at > PART; at = end) {
        end = at + PART;
        // Both halves of a letter.
        if (isText && (data.charCodeAt(end) & 0xfc00) === 0xdc00) end -= 1;
        ws.send("k");
        put(data.slice(at, end));
      }
      put(at ? data.slice(at) : data);
      function put(piece) { ws.send(isText ? "m" + piece : piece); }
    }
    function connect() {
      w.clearTimeout(timer);
      var s = isPlain ? new w.WebSocket(self.url)
        : new w.WebSocket(id ? self.url + "?bowline_resume=" + id + "." + got : self.url, PROTOCOL);
      ws = s;
      isPart = false;
      parts = [];
      s.binaryType = "arraybuffer";
      s.onopen = function () { if (s === ws && isPlain) opened(); };
      s.onmessage = function (e) { if (s === ws) came(e.data); };
      s.onclose = function (e) { if (s === ws) down(e); };
      if (id) timer = w.setTimeout(cut, ANSWER);
    }
    function opened() {
      self.readyState = 1;
      emit(new w.Event("open"));
    }
    // The other side has so many of ours; the rest goes (again).
    function live(has) {
      w.clearTimeout(timer);
      isLive = true;
      lost = tries = asked = 0;
      told = got;
      gotBytes = 0;
      tell();
      drop(has);
      queue.forEach(transmit);
    }
    function drop(has) {
      while (acked < has && queue.length) {
        bytes -= size(queue.shift());
        acked += 1;
      }
    }
    function came(data) {
      heard = Date.now();
      if (isPlain) return emit(new w.MessageEvent("message", { data: data }));
      if (typeof data !== "string") return take(data);
      var rest = data.slice(1);
      switch (data.charAt(0)) {
        case "m": return take(rest);
        case "a": return drop(+rest);
        case "r": return live(+rest);
        case "k": isPart = true; return;
        case "g": return finish(1006, "", false);
        case "s":
          rest = rest.split(" ");
          id = rest[0];
          hold = rest[1] * 1000;
          beat = w.setInterval(ask, BEAT);
          live(0);
          opened();
      }
    }
    function take(data) {
      if (isPart || parts.length) {
        parts.push(data);
        if (isPart) {
          isPart = false;
          return acknowledge(true);
        }
        data = joined(parts);
        parts = [];
      }
      got += 1;
      gotBytes += size(data);
      if (got - told >= 32 || gotBytes >= 65536) acknowledge();
      else if (!later) later = w.setTimeout(acknowledge, 1000);
      emit(new w.MessageEvent("message", { data: data }));
    }
    function joined(all) {
      if (typeof all[0] === "string") return all.join("");
      var at = 0, whole = new w.Uint8Array(all.reduce(function (n, piece) { return n + piece.byteLength; }, 0));
      all.forEach(function (piece) {
        whole.set(new w.Uint8Array(piece), at);
        at += piece.byteLength;
      });
      return whole.buffer;
    }
    function acknowledge(always) {
      w.clearTimeout(later);
      later = 0;
      if (!isLive || told === got && always !== true) return;
      told = got;
      gotBytes = 0;
      ws.send("a" + got);
    }
    function ask() {
      if (!isLive) return;
      if (asked && heard < asked) {
        if (Date.now() - asked >= ANSWER) cut();
      } else if (Date.now() - heard >= BEAT / 2) {
        asked = Date.now();
        ws.send("p");
      }
    }
    function awake() {
      if (lost) {
        tries = 0;
        if (!ws) connect();
      } else if (isLive) {
        var since = asked = Date.now();
        ws.send("p");
        w.setTimeout(function () { if (isLive && asked === since && heard < since) cut(); }, 3000);
      }
    }
    function cut() {
      var s = ws;
      if (!s) return;
      ws = null;
      // Not an end: the line is given up, and another one takes its place.
      s.close(4999);
      down({ wasClean: false, code: 1006, reason: "" });
    }
    function down(e) {
      ws = null;
      isLive = false;
      w.clearTimeout(timer);
      if (self.readyState > 1 || isPlain || (id && e.wasClean)) return finish(e.code, e.reason, e.wasClean);
      // Whoever is there does not speak this.
      if (!id) {
        isPlain = true;
        return connect();
      }
      if (!lost) {
        lost = Date.now();
        soon = w.setTimeout(tell, 1000);
      }
      if (Date.now() - lost > hold) return finish(1006, "", false);
      var wait = [20, 200, 500][tries] || 1000;
      tries += 1;
      timer = w.setTimeout(connect, wait * (1 + Math.random() / 2));
    }
    function finish(code, reason, wasClean) {
      var s = ws;
      if (self.readyState === 3) return;
      self.readyState = 3;
      ws = null;
      isLive = false;
      lost = 0;
      queue = [];
      if (s) s.close();
      [timer, later, soon].forEach(w.clearTimeout.bind(w));
      w.clearInterval(beat);
      w.removeEventListener("online", awake);
      tell();
      var e = new w.CloseEvent("close", { code: code, reason: reason, wasClean: wasClean });
      self.allowReconnect = !isOver(e);
      emit(e);
    }
    function tell() {
      var body = w.document.body;
      if (hint && !lost) {
        hint.remove();
        hint = null;
      } else if (lost && !hint && body) {
        hint = w.document.createElement("div");
        hint.id = "bowline-hint";
        hint.setAttribute("role", "status");
        hint.style.cssText = "position:fixed;right:1em;bottom:1em;z-index:99999;padding:.4em .8em;border-radius:.4em;" +
          "background:#222;color:#fff;font:14px/1.4 system-ui,sans-serif;opacity:.85;pointer-events:none";
        body.appendChild(hint).textContent = "Reconnecting\u2026";
      }
    }
    w.addEventListener("online", awake);
    connect();
    return self;
  }
  function install(shiny) {
    if (shiny && !shiny.createSocket) shiny.createSocket = mode === "resume" ? resuming : reconnecting;
  }
  var shiny = w.Shiny;
  if (shiny) return install(shiny);
  Object.defineProperty(w, "Shiny", {
    configurable: true,
    enumerable: true,
    get: function () { return shiny; },
    set: function (value) { shiny = value; install(value); }
  });
})(window, "reconnect");
