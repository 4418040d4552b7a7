// An echo by SockJS, at paths as Posit's client asks for; `go` ends a connection in order, `drop` without a word. All else is
// told how many connections have ended. npm packages are in `packages` beside this, or where NODE_PATH says.
const path = require('node:path');
process.env.NODE_PATH ||= path.join(__dirname, 'packages');
require('node:module')._initPaths();
const sockjs = require('sockjs');

let ended = 0;
const echo = sockjs.createServer({ prefix: '/__sockjs__/n=[A-Za-z0-9]+', log: () => {} });
echo.on('connection', (connection) => {
  connection.on('data', (text) => {
    if (text === 'go') connection.close(4567, 'as you like');
    else if (text === 'drop') connection._session.recv.connection.destroy();
    else connection.write(text);
  });
  connection.on('close', () => { ended += 1; });
});
const server = require('node:http').createServer((_, response) => response.end(JSON.stringify({ ended })));
echo.installHandlers(server);
server.listen(process.env.PORT, '127.0.0.1', () => console.log(server.address().port));
