// The page of interactive docs in a real browser, by clicks: register, activate with Basic, sign in, authorize with Bearer,
// and read one's account. It loads nothing from elsewhere and breaks no rule of its Content-Security-Policy.
//
// Install:  npm install playwright-core      in a folder above this one, or elsewhere with NODE_PATH=.../node_modules;
//           Chromium as Debian has it, or USERMGR_TEST_CHROMIUM=/path/to/it
// Reads:    USERMGR_TEST_URL           where the server is, such as http://localhost:8000
//           USERMGR_TEST_MAILS         the folder that it writes its mails to (mail.url = file://…)
//           USERMGR_TEST_SCREENSHOTS   a folder for pictures; without it, none are taken

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';

// Unlike an import by name, this also looks where NODE_PATH says.
const { chromium } = createRequire(import.meta.url)('playwright-core');

const base = process.env.USERMGR_TEST_URL;
const mails = process.env.USERMGR_TEST_MAILS;
const pictures = process.env.USERMGR_TEST_SCREENSHOTS;
const email = 'ana@example.org';
const password = 'correct horse battery';

const browser = await chromium.launch({
  executablePath: process.env.USERMGR_TEST_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
});
const page = await (await browser.newContext({ viewport: { width: 1280, height: 1000 } })).newPage();
page.setDefaultTimeout(30_000);
const complaints = [];
page.on('pageerror', (error) => complaints.push(String(error)));
page.on('console', (message) => {
  if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
});
page.on('request', (request) => {
  const url = request.url();
  if (!url.startsWith(`${base}/`) && !url.startsWith('data:')) complaints.push(`it asks ${url}`);
});

const picture = async (name) => pictures && (await page.screenshot({ path: join(pictures, `docs-${name}.png`) }));

// Sends a request from the page, and answers the status and what came back.
async function send(id, body) {
  const operation = page.locator(`.opblock[id$="-${id}"]`);
  const answered = page.waitForResponse((response) => response.request().method() === 'POST' || id === 'me');
  if (!(await operation.locator('.execute').count())) await operation.locator('.opblock-summary-control').first().click();
  await operation.locator('.execute').waitFor();
  if (body) await operation.locator('textarea.body-param__text').fill(JSON.stringify(body));
  await operation.locator('.execute').click();
  const response = await answered;
  await operation.locator('.live-responses-table').waitFor();
  return { status: response.status(), body: await response.json() };
}

async function authorize(scheme, fill) {
  await page.locator('.auth-wrapper > .authorize, .scheme-container .authorize').first().click();
  const dialog = page.locator('.modal-ux');
  const part = dialog.locator('.auth-container').filter({ hasText: scheme });
  await fill(part);
  await part.locator('button.authorize').click();
  await part.getByText('Logout').waitFor();
  await picture(scheme.split(' ')[0]);
  await part.locator('.btn-done').click();
}

async function code() {
  for (let n = 0; n < 300; n += 1) {
    const mail = readdirSync(mails).filter((file) => file.endsWith('.eml'))[0];
    const found = mail && readFileSync(join(mails, mail), 'utf8').match(/^\s*(\d{6})\s*$/m);
    if (found) return found[1];
    await wait(100);
  }
  throw new Error('the mail did not come');
}

try {
  await page.goto(`${base}/docs`);
  await page.locator('.opblock').first().waitFor();
  await picture('open');
  assert.ok((await page.locator('.opblock').count()) > 40);

  const registered = await send('register', { email, password });
  assert.equal(registered.status, 202);

  await authorize('basic', async (part) => {
    await part.locator('input[name="username"]').fill(email);
    await part.locator('input[name="password"]').fill(password);
  });
  const activated = await send('activate', { code: await code() });
  assert.deepEqual([activated.status, activated.body.user.email], [200, email]);

  const signedIn = await send('login', { email, password });
  assert.equal(signedIn.status, 200);

  await authorize('bearer', (part) => part.locator('input').fill(signedIn.body.access_token));
  const me = await send('me');
  assert.deepEqual([me.status, me.body.email, me.body.email_verified], [200, email, true]);
  await page.locator('.opblock[id$="-me"]').scrollIntoViewIfNeeded();
  await picture('me');

  assert.deepEqual(complaints, []);
  console.log('ok');
} finally {
  await picture('last');
  await browser.close();
}
