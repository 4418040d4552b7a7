// Talks to `sockjs-app.js` at the URL given as argument as sockjs-client does, and prints what came of it.
import SockJS from 'sockjs-client';

const url = process.argv[2];
const told = [];

// An open connection: `says` resolves to what is echoed next, `end` to how it ended.
function connected() {
  const socket = new SockJS(`${url}/__sockjs__/n=abcdefghijklmnopqr`, null, { transports: ['websocket'] });
  const came = [], waiting = [];
  socket.onmessage = ({ data }) => (waiting.length ? waiting.shift()(data) : came.push(data));
  const end = new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
  });
  const next = () => (came.length ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)));
  const open = new Promise((resolve) => { socket.onopen = () => resolve(true); });
  return Promise.race([open, end]).then((is) => ({ isOpen: is === true, is, socket, next, end }));
}

async function echoes(one, text) {
  one.socket.send(text);
  const back = await Promise.race([one.next(), one.end]);
  if (back !== text) throw new Error(`no echo of ${text.slice(0, 20)}: ${JSON.stringify(back).slice(0, 80)}`);
}

// In order from there, without a word, and in order from here.
for (const how of ['go', 'drop', 'close']) {
  const one = await connected();
  if (!one.isOpen) throw new Error(JSON.stringify(one.is));
  for (const text of ['hello', '\u00e4\u{1f600}', 'x'.repeat(300_000)]) await echoes(one, text);
  const { transport } = one.socket;
  const many = Array.from({ length: 200 }, (_, n) => `number ${n}`);
  many.forEach((text) => one.socket.send(text));
  for (const text of many) if (await one.next() !== text) throw new Error(`not in order: ${text}`);
  if (how === 'close') one.socket.close(1000, 'enough');
  else one.socket.send(how);
  told.push({ how, transport, ...(await one.end) });
}
for (let n = 0; n < 100; n += 1) {
  const { ended } = await (await fetch(`${url}/`)).json();
  if (ended === 3) break;
  if (n === 99) throw new Error(`${ended} connections have ended there`);
  await new Promise((resolve) => setTimeout(resolve, 100));
}
console.log(JSON.stringify(told));
