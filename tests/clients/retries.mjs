// The checks of the client test in Node: how OpenAI's client takes each 429 and 503 of the gateway's.
//
// run.sh starts everything and tells where it is through the environment, as retries.py says, which has the same checks;
// and in MODULES, the folder whose node_modules has the client.

import assert from "node:assert/strict";
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const { OpenAI } = createRequire(process.env.MODULES + "/")("openai");
const { PROVIDER, MAIN, MAIN_ADMIN, NARROW, NARROW_ADMIN, FULL, FULL_ADMIN, LIMITED, LIMITED_ADMIN } = process.env;
const HELLO = [{ role: "user", content: "hello" }];

const ask = async (gateway, key, model, maxRetries) => {
  const apiKey = `sk-${key}-5d41402abc4b2a76`;
  const client = new OpenAI({ baseURL: gateway + "/v1", apiKey, timeout: 20_000, maxRetries });
  const answer = await client.chat.completions.create({ model, messages: HELLO, max_tokens: 10 });
  return answer.choices[0].message.content;
};

// --- the checks' frame

class Skipped extends Error {}

/** Waits until `probe` holds; what a gateway counts may be a moment later than what a client sees. */
const eventually = async (what, probe, seconds = 5) => {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    try {
      return await probe();
    } catch (problem) {
      if (Date.now() > deadline) {
        throw new Error(`${what}: still wrong after ${seconds} s: ${problem.message}`);
      }
    }
    await sleep(20);
  }
};

/** The request must fail with this error of the client's. */
const refused = async (kind, status, code, asking) => {
  const error = await asking.then(
    () => assert.fail(`expected ${kind.name}, got an answer`),
    (error) => error,
  );
  assert.ok(error instanceof kind, `expected ${kind.name}, got ${error}`);
  assert.deepEqual([error.status, error.code], [status, code]);
  return error;
};

const took = async (least, most, work) => {
  const began = performance.now();
  const result = await work();
  const seconds = (performance.now() - began) / 1000;
  // A timer may be early by less than a millisecond.
  const isWithin = least - 0.01 <= seconds && seconds <= most;
  assert.ok(isWithin, `took ${seconds.toFixed(2)} s, which is not within ${least} and ${most}`);
  return result;
};

const fetched = async (url, body) => {
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(url, { method, body: body && JSON.stringify(body) });
  assert.equal(response.status, 200, url);
  return response.text();
};

const script = (model, ...acts) => fetched(`${PROVIDER}/script/${model}`, acts);
const release = (model) => fetched(`${PROVIDER}/release/${model}`, {});
const asked = async (model) => Number(await fetched(`${PROVIDER}/asked/${model}`));

/** How many requests a gateway has answered, by status. */
const requests = async (admin) => {
  const counts = {};
  const lines = (await fetched(admin + "/metrics")).matchAll(/^tollgate_requests_total\{.*status="(\d+)".*\} (\d+)$/gm);
  for (const [, status, count] of lines) {
    counts[status] = (counts[status] ?? 0) + Number(count);
  }
  return counts;
};

/** The gateway must answer just so many requests meanwhile. */
const counted = async (admin, expected, work) => {
  const before = await requests(admin);
  await work();
  await eventually("requests at the gateway", async () => {
    const more = {};
    for (const [status, count] of Object.entries(await requests(admin))) {
      if (count > (before[status] ?? 0)) {
        more[status] = count - (before[status] ?? 0);
      }
    }
    assert.deepEqual(more, expected);
  });
};

/** A request is under way meanwhile, unless it is released. */
const held = async (gateway, key, model, work) => {
  await script(model, { hold: true });
  const answer = ask(gateway, key, model, 0);
  answer.catch(() => {}); // it is looked at below
  try {
    await eventually("a held request", async () => assert.equal(await asked(model), 1));
    await work();
  } finally {
    await release(model);
  }
  assert.equal(await answer, "hello");
};

/** The request meets a refusal; once it was refused, what is held is let go. */
const untilRefused = async (admin, model, status, work) => {
  const before = (await requests(admin))[status] ?? 0;
  const releasing = eventually("a refusal", async () => {
    assert.equal((await requests(admin))[status], before + 1);
  }).then(() => release(model));
  await Promise.all([work(), releasing]);
};

// --- the checks

const { RateLimitError, InternalServerError, APIConnectionError } = OpenAI;

const CHECKS = {
  "a budget that is used up is told at once": () =>
    counted(MAIN_ADMIN, { 429: 1 }, () =>
      took(0, 1, () => refused(RateLimitError, 429, "budget_exceeded", ask(MAIN, "poor", "fine", 3))),
    ),

  "a model that nobody can serve is told at once": () =>
    counted(MAIN_ADMIN, { 503: 1 }, () =>
      took(0, 1, () => refused(InternalServerError, 503, "no_target_available", ask(MAIN, "ann", "nobody", 3))),
    ),

  "a model without a price is told at once": () =>
    counted(MAIN_ADMIN, { 503: 1 }, () =>
      took(0, 1, () => refused(InternalServerError, 503, "no_target_available", ask(MAIN, "rich", "unpriced", 3))),
    ),

  "a provider that fails is not seen where another answers": async () => {
    await script("ill", { status: 503 });
    await counted(MAIN_ADMIN, { 200: 1 }, async () => {
      assert.equal(await took(0, 1, () => ask(MAIN, "ann", "second", 3)), "hello");
    });
    assert.equal(await asked("ill"), 1);
  },

  "rate limits of all providers are waited for as they say": async () => {
    for (const model of ["busy-one", "busy-two"]) {
      await script(model, { status: 429, headers: { "retry-after": "1" } });
    }
    await counted(MAIN_ADMIN, { 429: 1, 200: 1 }, async () => {
      assert.equal(await took(1, 3, () => ask(MAIN, "ann", "busy", 2)), "hello");
    });
  },

  "a gateway that has no place is asked again when it says": () =>
    counted(NARROW_ADMIN, { 503: 1, 200: 2 }, () =>
      held(NARROW, "ann", "held", () =>
        untilRefused(NARROW_ADMIN, "held", 503, async () => {
          assert.equal(await took(1, 3, () => ask(NARROW, "ann", "held", 2)), "hello");
        }),
      ),
    ),

  "a ledger that cannot be written is asked again when it says": async () => {
    if (!FULL) {
      throw new Skipped("the size of a process's files cannot be limited here");
    }
    await counted(FULL_ADMIN, { 503: 2 }, () =>
      took(1, 3, () => refused(InternalServerError, 503, "ledger_unavailable", ask(FULL, "rich", "fine", 1))),
    );
    await counted(FULL_ADMIN, { 200: 1 }, async () => {
      assert.equal(await ask(FULL, "ann", "fine", 0), "hello");
    });
  },

  "limits of keys are waited for as they say": () =>
    counted(LIMITED_ADMIN, { 429: 2, 200: 2 }, () =>
      held(LIMITED, "one", "held", async () => {
        const error = await refused(RateLimitError, 429, "rate_limit_exceeded", ask(LIMITED, "one", "held", 0));
        const wait = Number(error.headers.get("retry-after-ms")) / 1000;
        assert.ok(0 < wait && wait <= 5, `retry-after-ms says ${wait} s`);
        await untilRefused(LIMITED_ADMIN, "held", 429, async () => {
          assert.equal(await took(wait, wait + 2, () => ask(LIMITED, "one", "held", 2)), "hello");
        });
      }),
    ),

  "limits by the minute say when they end": async () => {
    // Whoever was here before has used it up.
    const three = async () => {
      for (let n = 0; n < 3; n++) {
        await ask(LIMITED, "two", "fine", 0);
      }
    };
    const { headers } = await refused(RateLimitError, 429, "rate_limit_exceeded", three());
    const wait = Number(headers.get("retry-after-ms")) / 1000;
    assert.ok(0 < wait && wait <= 60, `retry-after-ms says ${wait} s`);
    const seconds = Number(headers.get("retry-after"));
    assert.ok(wait <= seconds && seconds <= 60, `retry-after says ${seconds}`);
    assert.equal(headers.get("x-should-retry"), "true");
  },

  "a gateway that stops is asked again": async () => {
    const { LEAVING, LEAVING_PID } = process.env;
    await script("held", { hold: true }, { hold: true });
    const once = refused(InternalServerError, 503, "shutting_down", ask(LEAVING, "ann", "held", 0));
    const again = ask(LEAVING, "ann", "held", 1).then(
      () => assert.fail("expected APIConnectionError, got an answer"),
      (error) => error,
    );
    try {
      await eventually("held requests", async () => assert.equal(await asked("held"), 2));
      process.kill(Number(LEAVING_PID), "SIGTERM");
      assert.equal((await once).headers.get("x-should-retry"), "true");
      // It came back after it was told so, and nobody was there.
      assert.ok((await again) instanceof APIConnectionError, `${await again}`);
    } finally {
      await release("held");
    }
  },
};

// Whatever hangs ends.
setTimeout(() => {
  console.error("the checks take too long");
  process.exit(1);
}, 60_000).unref();

let [passed, failed] = [0, 0];
for (const [name, check] of Object.entries(CHECKS)) {
  try {
    await check();
    passed += 1;
    console.log(`ok    node: ${name}`);
  } catch (error) {
    if (error instanceof Skipped) {
      console.log(`skip  node: ${name}: ${error.message}`);
      continue;
    }
    failed += 1;
    console.log(`FAIL  node: ${name}\n${error.stack}`);
  }
}
appendFileSync(process.env.SUMMARY, `${passed} ${failed}\n`);
process.exit(failed > 0 ? 1 : 0);
