// The guide's own design: Express verifies and parses, Redis remembers keys and holds the queue. As its code does it,
// with the two faults mended that would make it throw (an unequal length, a missing header).
const crypto = require('crypto');
const express = require('express');
const Redis = require('ioredis');

const [port, redisPort, secret] = process.argv.slice(2);
const redis = new Redis(Number(redisPort), '127.0.0.1');
const app = express();

function verifyWebhookSignature(reqBody, signatureHeader) {
  const calculated = crypto.createHmac('sha256', secret).update(reqBody).digest('hex');
  const claimed = Buffer.from(signatureHeader || '');
  return claimed.length === calculated.length && crypto.timingSafeEqual(Buffer.from(calculated), claimed);
}

app.post('/v1/genesys/lifecycle/:endpoint', express.json({ verify: (req, res, buf) => { req.rawBody = buf; } }),
  async (req, res) => {
    if (!verifyWebhookSignature(req.rawBody, req.headers['x-genesys-signature'])) {
      return res.status(401).json({ error: 'Invalid signature' });
    }
    const payload = JSON.parse(req.rawBody);
    const idempotencyKey = `${payload.integrationId}_${payload.eventTimestamp}`;
    if (await redis.get(idempotencyKey)) return res.status(200).json({ status: 'duplicate_handled' });
    await redis.setex(idempotencyKey, 86400, 'processing');
    await redis.lpush('lifecycle.provisioning', JSON.stringify(payload));
    return res.status(200).json({ status: 'queued' });
  });

app.listen(Number(port), '127.0.0.1', 8192);
