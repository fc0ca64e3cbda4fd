// Node's http: with_node.js PORT
require('http').createServer((request, response) => {
  const { remoteAddress, remotePort } = request.socket;
  const body = 'hello\n';
  response.writeHead(200, {
    'Content-Length': body.length, 'X-Pid': process.pid, 'X-Peer': `${remoteAddress}:${remotePort}`,
  });
  response.end(body);
}).listen(Number(process.argv[2]), '127.0.0.1');
