// A producer in Node.js: npm install; node producer.mjs ipc:///PATH/producers.ipc [SERVABLE METHOD]
//
// It speaks 7/MDP: asks whether the servable is there, sends two instances of two matrices, and
// prints what comes back. Source: docs/PROTOCOL.md §11, and §4 for the values.
import { decode, encode } from "@msgpack/msgpack";
import { Request } from "zeromq";

// One request and the body of its reply. An attempt without a reply is given up with its socket, as
// ZeroMQ's guide has it in "Lazy Pirate"; the request may then run twice.
async function ask(address, service, body, timeoutMs = 10_000, attempts = 3) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const socket = new Request({ linger: 0, receiveTimeout: timeoutMs, sendTimeout: timeoutMs });
    socket.connect(address);
    try {
      await socket.send(["MDPC01", service, body]);
      const [protocol, , ...frames] = await socket.receive();
      if (protocol.toString() !== "MDPC01") throw new Error(`${protocol} is not MDPC01`);
      return frames[0]; // further frames are tensors of 64 KiB or more
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    } finally {
      socket.close();
    }
  }
  throw new Error(`no reply from ${address} in ${attempts} times ${timeoutMs} ms`);
}

// The outputs of each instance: an array of objects from name to value.
async function infer(address, servable, method, instances, budgetMs = 10_000) {
  const request = { method, budget_ms: budgetMs, instances };
  const reply = decode(await ask(address, servable, encode(request), budgetMs + 1_000));
  if (reply.status !== 0) throw new Error(`${reply.reason}: ${reply.message}`);
  if (reply.errors) throw new Error(`instances failed: ${JSON.stringify(reply.errors)}`);
  return reply.instances;
}

// A tensor as it travels: [dtype, shape, little-endian bytes in C order].
function float32(shape, numbers) {
  const bytes = new Uint8Array(4 * numbers.length);
  const view = new DataView(bytes.buffer);
  numbers.forEach((number, at) => view.setFloat32(4 * at, number, true));
  return ["float32", shape, bytes];
}

function numbersOf([, , bytes]) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, at) => view.getFloat32(4 * at, true));
}

const [address, servable = "add", method = "add_common"] = process.argv.slice(2);
if (!address) {
  console.error("usage: node producer.mjs ADDRESS [SERVABLE METHOD]");
  process.exit(2);
}
if ((await ask(address, "mmi.service", servable)).toString() !== "200") {
  console.error(`nobody serves ${servable}`);
  process.exit(1);
}
const inputs = { x1: float32([2, 2], [1, 1, 1, 1]), x2: float32([2, 2], [1, 2, 3, 4]) };
for (const { y } of await infer(address, servable, method, [inputs, inputs])) {
  console.log(y[0], `[${y[1].join(", ")}]`, ...numbersOf(y));
}
