// Clients in Node, each making calls to a Messages API: what it heard of each answer.
//
// CASES: [{client, url, stream, retries, timeout, limit}]; QUESTION: the request's body. Prints an array as the last line, with
// an object for each case: the fields of `Heard` in replay_clients.py. Timers run SPEED times as fast: also those that time limits
// count, of the clients and of undici, Node's own HTTP client. `limit` is in real milliseconds.

import { createAnthropic } from '@ai-sdk/anthropic';
import Anthropic from '@anthropic-ai/sdk';
import { generateText, streamText } from 'ai';

globalThis.AI_SDK_LOG_WARNINGS = false;
const question = JSON.parse(process.env.QUESTION);
const setRealTimeout = globalThis.setTimeout;
const SPEED = 100;
globalThis.setTimeout = (run, ms, ...more) => setRealTimeout(run, ms / SPEED, ...more);

// Undici adds up ticks of 499 ms. Counted in the same way, a wait has the same length on a slow machine.
const TICK_MS = 499;
let now = 0;
const clock = setTimeout(() => { now += TICK_MS / 1000; clock.refresh(); }, TICK_MS);

const nameOf = (e) => (e instanceof Error ? (e.constructor.name === 'Error' ? e.name : e.constructor.name) : `${e?.type ?? e}`);

const take = (heard, message) => {
  const blocks = message.content;
  heard.text = blocks.filter((b) => b.type === 'text').map((b) => b.text).join('');
  heard.thinking = blocks.filter((b) => b.type === 'thinking').map((b) => b.thinking).join('');
  heard.calls = blocks.filter((b) => b.type.endsWith('tool_use')).map((b) => [b.name, b.input]);
  heard.stop = message.stop_reason;
};

// Server-sent events as most programs read them that use no library.
const read = (heard, piece, state) => {
  const parts = (state.rest + piece).split('\n\n');
  state.rest = parts.pop();
  for (const line of parts.flatMap((part) => part.split('\n')).filter((line) => line.startsWith('data: '))) {
    const { type, index, delta, content_block: block } = JSON.parse(line.slice(6));
    if (type === 'content_block_start' && block.type.endsWith('tool_use')) {
      state.inputs[index] = '';
      heard.calls.push([block.name, block.input]);
    } else if (type === 'content_block_delta') {
      if (delta.type === 'text_delta') heard.text += delta.text;
      if (delta.type === 'thinking_delta') heard.thinking += delta.thinking;
      if (delta.type === 'input_json_delta') state.inputs[index] += delta.partial_json;
    } else if (type === 'content_block_stop' && state.inputs[index]) {
      heard.calls.at(-1)[1] = JSON.parse(state.inputs[index]);
    } else if (type === 'message_delta') {
      heard.stop = delta.stop_reason;
    }
  }
};

const clients = {
  async 'node-sdk'({ url, stream, retries }, heard, signal) {
    const client = new Anthropic({ baseURL: url, apiKey: 'any', maxRetries: retries });
    if (!stream) return take(heard, await client.messages.create(question, { signal }));
    const answer = client.messages.stream(question, { signal }).on('text', (piece) => (heard.text += piece));
    return take(heard, await answer.finalMessage());
  },

  async 'ai-sdk'({ url, stream, retries }, heard, abortSignal) {
    const model = createAnthropic({ baseURL: `${url}/v1`, apiKey: 'any' })(question.model);
    const options = { model, messages: question.messages, maxRetries: retries, abortSignal };
    if (!stream) {
      const answer = await generateText(options);
      heard.text = answer.text;
      heard.thinking = answer.reasoningText ?? '';
      heard.calls = answer.toolCalls.map((call) => [call.toolName, call.input]);
      heard.stop = answer.finishReason;
      return;
    }
    for await (const part of streamText({ ...options, onError() {} }).fullStream) {
      if (part.type === 'text-delta') heard.text += part.text;
      if (part.type === 'reasoning-delta') heard.thinking += part.text;
      if (part.type === 'tool-call') heard.calls.push([part.toolName, part.input]);
      if (part.type === 'error') heard.error ||= nameOf(part.error);
      if (part.type === 'finish') heard.stop = part.finishReason;
    }
  },

  async fetch({ url, stream }, heard, signal) {
    const headers = { 'content-type': 'application/json', 'x-api-key': 'any', 'anthropic-version': '2023-06-01' };
    const body = JSON.stringify({ ...question, stream });
    const response = await fetch(`${url}/v1/messages`, { method: 'POST', headers, body, signal });
    heard.status = response.status;
    if (!stream) return take(heard, await response.json());
    const decoder = new TextDecoder();
    const state = { rest: '', inputs: {} };
    const reader = response.body.getReader();
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      read(heard, decoder.decode(piece.value, { stream: true }), state);
    }
  },
};

const hear = async (one) => {
  const heard = { text: '', thinking: '', calls: [], stop: null, error: '', status: 200, hangs: false };
  const control = new AbortController();
  const began = now;
  const call = clients[one.client](one, heard, control.signal).catch((e) => (heard.error ||= nameOf(e)));
  if (one.limit === undefined) {
    await call;
    return heard;
  }
  const isLate = Symbol();
  const first = await Promise.race([call, new Promise((late) => setRealTimeout(late, one.limit, isLate))]);
  const seen = { ...heard, hangs: first === isLate, seconds: Math.floor((now - began) / 10) * 10 };
  control.abort();
  return seen;
};

const cases = JSON.parse(process.env.CASES);
const found = [];
for (const one of cases) if (one.limit === undefined) found[cases.indexOf(one)] = await hear(one);
// Waiting needs nothing but time: all at once.
await Promise.all(cases.map(async (one, at) => (found[at] ??= await hear(one))));
process.stdout.write(`\n${JSON.stringify(found)}\n`, () => process.exit());
