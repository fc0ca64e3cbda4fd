// A server that knows nothing of rrdispatch: hello.js PORT; /sleep/MS answers later
const slot = process.env.RRDISPATCH_SLOT || '-1';
require('http').createServer((request, response) => {
  const body = `slot ${slot} pid ${process.pid} peer ${request.socket.remoteAddress}`;
  const [, verb, amount] = request.url.split('/');
  setTimeout(() => {
    response.writeHead(200, {
      'Content-Length': body.length, 'X-Pid': process.pid, 'X-Slot': slot, 'X-Version': '1',
    });
    response.end(body);
  }, verb === 'sleep' ? Number(amount) : 0);
}).listen(Number(process.argv[2]), '127.0.0.1');
