// Runs pieces of JavaScript one after another, and tells what came of each: what python.py does,
// for Node. It is started by a shell that has put the way for answers at descriptor 3; what child
// processes write goes to standard error.
"use strict";
const fs = require("fs");
const vm = require("vm");
const util = require("util");

function tell(kind, data) {
  const head = Buffer.alloc(5);
  head.write(kind, 0, "latin1");
  head.writeUInt32BE(data.length, 1);
  let rest = Buffer.concat([head, data]);
  while (rest.length) {
    try {
      rest = rest.subarray(fs.writeSync(3, rest));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

for (const [stream, kind] of [[process.stdout, "o"], [process.stderr, "e"]]) {
  stream.write = (data, encoding, done) => {
    tell(kind, Buffer.from(data, typeof encoding === "string" ? encoding : undefined));
    const then = typeof encoding === "function" ? encoding : done;
    if (then) process.nextTick(then);
    return true;
  };
}

function exactly(count) {
  const data = Buffer.alloc(count);
  let had = 0;
  while (had < count) {
    let more;
    try {
      more = fs.readSync(0, data, had, count - had, null);
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      throw error;
    }
    if (more === 0) process.exit(0);
    had += more;
  }
  return data;
}

const context = vm.createContext(Object.assign(Object.create(null), {
  require, process, console, Buffer, URL, URLSearchParams, TextEncoder, TextDecoder,
  setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate, fetch: globalThis.fetch,
}));
context.globalThis = context.global = context;

async function main() {
  for (let count = 1; ; count++) {
    const code = exactly(exactly(4).readUInt32BE(0)).toString();
    const answer = { results: [], error: null, text: null, files: [] };
    try {
      let value = vm.runInContext(code, context, { filename: `<code ${count}>`, breakOnSigint: true });
      if (value instanceof Promise || (value && typeof value.then === "function")) value = await value;
      if (value !== undefined) {
        answer.text = util.inspect(value);
        answer.results.push({ "text/plain": answer.text });
      }
    } catch (error) {
      answer.error = {
        name: (error && error.name) || typeof error,
        message: String((error && error.message) || error),
        traceback: String((error && error.stack) || error),
      };
    }
    tell("d", Buffer.from(JSON.stringify(answer)));
  }
}
process.on("uncaughtException", (error) => process.stderr.write(String(error && error.stack) + "\n"));
main();
