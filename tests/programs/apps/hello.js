// A server that knows nothing of rrdispatch: hello.js PORT
const slot = process.env.RRDISPATCH_SLOT || '-1';
require('http').createServer((request, response) => {
  const body = `slot ${slot} pid ${process.pid} peer ${request.socket.remoteAddress}`;
  response.writeHead(200, {
    'Content-Length': body.length, 'X-Pid': process.pid, 'X-Slot': slot, 'X-Version': '1',
  });
  response.end(body);
}).listen(Number(process.argv[2]), '127.0.0.1');
