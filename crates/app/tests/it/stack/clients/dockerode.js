// dockerode, a client for Node, against the daemon of DOCKER_HOST.
"use strict";
const assert = require("node:assert");
const { PassThrough } = require("node:stream");
const Docker = require("dockerode");

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace("unix://", "") });

// All of a stream, as text.
const text = (stream) =>
  new Promise((resolve, reject) => {
    const parts = [];
    stream.on("data", (d) => parts.push(d));
    stream.on("end", () => resolve(Buffer.concat(parts).toString()));
    stream.on("error", reject);
  });

// Standard output and standard error of a multiplexed stream that ends.
async function outputs(stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  docker.modem.demuxStream(stream, out, err);
  stream.on("end", () => (out.end(), err.end()));
  return Promise.all([text(out), text(err)]);
}

const refused = (status, promise) => assert.rejects(promise, (e) => e.statusCode === status);

async function runs() {
  assert.strictEqual((await docker.ping()).toString(), "OK");
  assert.strictEqual((await docker.version()).Os, "linux");
  const out = new PassThrough();
  const said = text(out);
  const [ended, container] = await docker.run("busybox", ["sh", "-c", "echo hello; exit 3"], out);
  out.end();
  assert.strictEqual(ended.StatusCode, 3);
  assert.match(await said, /^hello\r?\n$/);
  await container.remove();
}

async function attaches() {
  const made = { Image: "busybox", Cmd: ["cat"], name: "cat", OpenStdin: true, StdinOnce: true, AttachStdin: true };
  const container = await docker.createContainer(made);
  const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  await container.start();
  const lines = Array.from({ length: 50000 }, (_, i) => `line ${i}\n`).join("");
  const got = outputs(stream);
  stream.end(lines);
  assert.strictEqual((await got)[0], lines);
  assert.strictEqual((await container.wait()).StatusCode, 0);
  const log = await container.logs({ stdout: true, stderr: true, follow: true });
  assert.strictEqual((await outputs(log))[0], lines);
  await container.remove();
}

async function execs() {
  const container = await docker.createContainer({ Image: "busybox", Cmd: ["sleep", "1000"], name: "host", StopSignal: "SIGKILL" });
  await container.start();
  for (let i = 0; i < 10; i++) {
    const Cmd = ["sh", "-c", "read x; echo out $x; echo err >&2; exit 9"];
    const exec = await container.exec({ Cmd, AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const got = outputs(stream);
    stream.write("typed\n");
    assert.deepStrictEqual(await got, ["out typed\n", "err\n"]);
    assert.strictEqual((await exec.inspect()).ExitCode, 9);
  }
  await container.putArchive(await packed({ name: "x", data: "up" }), { path: "/tmp" });
  assert.match(await text(await container.getArchive({ path: "/tmp/x" })), /up/);
  const stats = await container.stats({ stream: false });
  assert.ok(stats.memory_stats.usage > 0);
  assert.strictEqual((await docker.listContainers({ filters: { name: ["host"] } })).length, 1);
  await container.remove({ force: true });
  await refused(404, container.inspect());
}

const packed = async (...files) => {
  const pack = require("tar-stream").pack();
  for (const f of files) pack.entry({ name: f.name }, f.data);
  pack.finalize();
  return pack;
};

async function builds() {
  const file = { name: "Dockerfile", data: "FROM busybox\nARG A\nRUN echo $A > /a\nCMD cat /a\n" };
  const stream = await docker.buildImage(await packed(file), { t: "made:1", buildargs: { A: "built" } });
  const steps = await new Promise((resolve, reject) => docker.modem.followProgress(stream, (e, all) => (e ? reject(e) : resolve(all))));
  assert.ok(steps.some((s) => s.aux), JSON.stringify(steps));
  const out = new PassThrough();
  const said = text(out);
  const [, container] = await docker.run("made:1", [], out);
  out.end();
  assert.match(await said, /built/);
  await container.remove();
  await docker.getImage("made:1").remove();
  await refused(404, docker.getImage("made:1").inspect());
}

async function events() {
  const stream = await docker.getEvents({ filters: { event: ["create"], type: ["volume"] } });
  const first = new Promise((resolve) => stream.once("data", (d) => resolve(JSON.parse(d))));
  const volume = await docker.createVolume({ Name: "seen" });
  assert.strictEqual((await first).Actor.ID, "seen");
  stream.destroy();
  await docker.getVolume(volume.name || volume.Name).remove();
  const network = await docker.createNetwork({ Name: "lan", Internal: true });
  assert.strictEqual((await network.inspect()).Internal, true);
  await network.remove();
}

(async () => {
  for (const part of [runs, attaches, execs, builds, events]) {
    await part();
    console.log(part.name, "ok");
  }
  assert.deepStrictEqual(await docker.listContainers({ all: true }), []);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
