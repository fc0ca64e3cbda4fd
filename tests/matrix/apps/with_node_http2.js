// Node's http2 over TLS: with_node_http2.js PORT FOLDER
const fs = require('fs');
const [port, folder] = process.argv.slice(2);
require('http2').createSecureServer({
  key: fs.readFileSync(`${folder}/key.pem`), cert: fs.readFileSync(`${folder}/cert.pem`),
}, (request, response) => {
  const { remoteAddress, remotePort } = request.socket;
  response.end(`${process.pid} ${remoteAddress}:${remotePort}`);
}).listen(Number(port), '127.0.0.1');
