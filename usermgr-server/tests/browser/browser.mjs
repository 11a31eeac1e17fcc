// What tests in a real browser share: Chromium, what is looked at on every page, and the mails.
//
// Install:  npm install playwright-core axe-core     in a folder above this one, or elsewhere with
//           NODE_PATH=.../node_modules; Chromium as Debian has it, or USERMGR_TEST_CHROMIUM=/path/to/it
// Reads:    USERMGR_TEST_URL           where the server is, such as http://localhost:8000
//           USERMGR_TEST_MAILS         the folder that it writes its mails to (mail.url = file://…)
//           USERMGR_TEST_SCREENSHOTS   a folder for pictures of every page; without it, none are taken

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

// Unlike an import by name, this also looks where NODE_PATH says.
const require = createRequire(import.meta.url);
const { chromium } = require('playwright-core');
const axeSource = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

export const base = process.env.USERMGR_TEST_URL;
const mailFolder = process.env.USERMGR_TEST_MAILS;
const pictures = process.env.USERMGR_TEST_SCREENSHOTS;
if (pictures) mkdirSync(pictures, { recursive: true });

export const launch = () =>
  chromium.launch({
    executablePath: process.env.USERMGR_TEST_CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });

// A window of its own. What its pages complain of, a Content-Security-Policy that was broken among it, is collected in
// `complaints`; an answer that is no success is none.
export async function open(browser, options = {}) {
  const context = await browser.newContext({ baseURL: base, ...options });
  const complaints = [];
  context.on('weberror', (error) => complaints.push(String(error.error())));
  context.on('console', (message) => {
    const expected = message.text().startsWith('Failed to load resource: the server responded with a status of');
    if (['error', 'warning'].includes(message.type()) && !expected) complaints.push(message.text());
  });
  context.on('request', (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith('data:')) {
      complaints.push(`it asks ${request.url()}`);
    }
  });
  const page = await context.newPage();
  return { context, page, complaints };
}

// Serious and critical findings of axe-core on a page, in both colour schemes, and its pictures. Where pages have no
// script, axe has none: there only pictures are taken.
export async function look(page, name, { scripted = true } = {}) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    if (scripted) assert.deepEqual(await findings(page), [], `${name}, ${colorScheme}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${name} is ${wide} px wider than its window`);
    if (pictures) await page.screenshot({ path: join(pictures, `${name}-${colorScheme}.png`), fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}

async function findings(page) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const serious = found.violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const where = ({ html, any }) => `${html} ${any.map(({ message }) => message)}`;
  return serious.map(({ id, nodes }) => `${id}: ${nodes.map(where).join(' | ')}`);
}

const decoded = (text) =>
  Buffer.from(
    text.replace(/=\r?\n/g, '').replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))),
    'latin1',
  ).toString('utf8');

// The n-th mail to an address, from 1, once it is there: its plain text. Names of files are in the order of time.
export async function mail(address, n) {
  const until = Date.now() + 30_000;
  while (Date.now() < until) {
    const mails = readdirSync(mailFolder)
      .filter((file) => file.endsWith('.eml'))
      .sort()
      .map((file) => readFileSync(join(mailFolder, file), 'utf8'))
      .filter((text) => text.split(/\r?\n\r?\n/)[0].includes(`To: ${address}`));
    if (mails.length >= n) {
      const parts = mails[n - 1].split(/\r?\n--=_/);
      return decoded(parts.find((part) => part.includes('Content-Type: text/plain')).split(/\r?\n\r?\n/).slice(1).join('\n\n'));
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`mail number ${n} to ${address} did not come`);
}

export const code = async (address, n) => (await mail(address, n)).match(/^\d{4,10}$/m)[0];
export const link = async (address, n) => (await mail(address, n)).match(/^https?:\/\/\S+#token=\S+$/m)[0];
