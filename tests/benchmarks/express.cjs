// What a tutorial shows: Express and the official SDK, a frame for each text.
//     node express.cjs BASE_URL      with NODE_PATH; prints its address

const Anthropic = require('@anthropic-ai/sdk').default;
const express = require('express');

const client = new Anthropic({ baseURL: process.argv[2], maxRetries: 0 });
const app = express();
app.use(express.json());

app.post('/chat/stream', async (req, res) => {
  res.setHeader('Content-Type', 'text/event-stream');
  res.setHeader('Cache-Control', 'no-cache');
  res.flushHeaders();
  const messages = [{ role: 'user', content: req.body.message }];
  const stream = client.messages.stream({ model: 'claude-benchmark', max_tokens: 1024, messages });
  res.on('close', () => stream.abort());
  try {
    for await (const event of stream) {
      if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') {
        res.write(`data: ${JSON.stringify(event.delta.text)}\n\n`);
      }
    }
    res.write('data: [DONE]\n\n');
  } catch (error) {
    res.write(`event: error\ndata: ${JSON.stringify(error.message)}\n\n`);
  }
  res.end();
});

const server = app.listen(0, '127.0.0.1', 8192, () => console.log(`http://127.0.0.1:${server.address().port}`));
