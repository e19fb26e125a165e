// OpenAI's Node client, unmodified: does one thing against OPENAI_BASE_URL and prints what it saw.
//     node client.mjs WAY

import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const chat = { model: "fake", messages: [{ role: "user", content: "a b c" }] };
const text = { model: "fake", prompt: "a b c" };
const long = { ...chat, max_tokens: 5000, n: 2, stream: true };

async function begin(options) {
  const stream = await client.chat.completions.create(long, options);
  const chunks = stream[Symbol.asyncIterator]();
  await chunks.next();
  return { stream, chunks };
}

// What the server works on now, as soon as it does.
async function running() {
  for (;;) {
    const answer = await fetch(`${client.baseURL}/requests`);
    const live = (await answer.json()).requests.filter((each) => each.phase === "decode");
    if (live.length) return live[0].id;
  }
}

// Each stays alive until its connection is closed: the end of the process would close it, too.
const ways = {
  async whole() {
    const answer = await client.completions.create({ ...text, max_tokens: 5, n: 1 });
    const { text: said, finish_reason: reason } = answer.choices[0];
    return { said, reason, tokens: answer.usage.completion_tokens };
  },

  async stream() {
    const options = { include_usage: true };
    const stream = await client.chat.completions.create({
      ...chat,
      max_tokens: 500,
      stop: " hard",
      stream: true,
      stream_options: options,
    });
    const seen = { said: "", reason: null, tokens: null };
    for await (const chunk of stream) {
      seen.said += chunk.choices[0]?.delta.content ?? "";
      seen.reason ??= chunk.choices[0]?.finish_reason ?? null;
      seen.tokens = chunk.usage?.completion_tokens ?? seen.tokens;
    }
    return seen;
  },

  async models() {
    return { said: (await client.models.list()).data.map((model) => model.id) };
  },

  async bad() {
    await client.completions.create({ ...text, n: 0 });
  },

  async cancelled() {
    const { data: stream, response } = await client.chat.completions.create(long).withResponse();
    const id = response.headers.get("x-request-id");
    for await (const _ of stream) {
      await fetch(`${client.baseURL}/requests/${id}/cancel`, { method: "POST" });
    }
  },

  async leave_by_break() {
    const stream = await client.chat.completions.create(long);
    for await (const _ of stream) break;
  },

  async leave_by_controller() {
    const { stream } = await begin();
    stream.controller.abort();
  },

  async leave_by_signal() {
    const controller = new AbortController();
    await begin({ signal: controller.signal });
    controller.abort();
  },

  async leave_by_signal_while_reading() {
    const controller = new AbortController();
    const { chunks } = await begin({ signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    while (!(await chunks.next()).done);
  },

  async leave_a_whole_answer_by_signal() {
    const controller = new AbortController();
    const asked = client.completions.create(
      { ...text, max_tokens: 5000 },
      { signal: controller.signal },
    );
    await running();
    controller.abort();
    await asked;
  },

  async leave_by_timeout() {
    await client.completions.create({ ...text, max_tokens: 5000 }, { timeout: 200 });
  },
};

let seen;
try {
  seen = await ways[process.argv[2]]();
} catch (error) {
  const { status, code, param, message } = error;
  seen = { error: error.constructor.name, status, code, param, message };
}
console.log(JSON.stringify(seen ?? {}));
process.stdin.on("end", () => process.exit()).resume();
