// Clicks through every page in Chromium, with real mail: see browser.mjs.
//
// The server has an administrator, admin@example.org, whose password is `correct horse battery`, and
// http.public_url is USERMGR_TEST_URL. Prints `ok NAME` for each part, and ends with status 1 at the first that fails.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { base, code, launch, link, look, open } from './browser.mjs';

const PASSWORD = 'correct horse battery';
const OTHER = 'another fine password';
const ADMIN = 'admin@example.org';

const browser = await launch();

const at = (page, path) => page.waitForURL((url) => url.pathname === path, { timeout: 15_000 });
const send = async (page, path, selector = 'main form button.main') => {
  await page.locator(selector).first().click();
  await at(page, path);
};

async function fill(page, values) {
  for (const [field, value] of Object.entries(values)) await page.fill(`#${field}`, value);
}

async function signIn(page, email, password) {
  await page.goto('/sign-in');
  await fill(page, { email, password });
  await send(page, '/account');
}

// The form is refused: the summary has the focus and leads to the field, which says what is wrong with it.
async function refused(page, field, scripted) {
  const summary = page.locator('.summary[role=alert]:not([hidden])');
  await summary.waitFor();
  assert.equal(await summary.evaluate((node) => node === document.activeElement), true, 'the summary has the focus');
  assert.match(await page.title(), /^Error: /);
  if (!field) return;
  const input = page.locator(`#${field}`);
  assert.equal(await input.getAttribute('aria-invalid'), 'true');
  const described = await input.getAttribute('aria-describedby');
  assert.ok((await page.locator(`#${described.split(' ')[0]}`).innerText()).length > 0);
  if (scripted) {
    await summary.locator(`a[href="#${field}"]`).click();
    assert.equal(await input.evaluate((node) => node === document.activeElement), true);
  }
}

async function flows(name, options) {
  const scripted = options.javaScriptEnabled !== false;
  const { context, page, complaints } = await open(browser, options);
  const look_ = (what) => look(page, `${name}-${what}`, { scripted });
  const ana = `ana-${name}@example.org`;
  const moved = `moved-${name}@example.org`;

  // Sign-up: a fault, then the code, sent twice.
  await page.goto('/');
  await at(page, '/sign-in');
  await look_('sign-in');
  await page.goto('/sign-up');
  await look_('sign-up');
  await fill(page, { email: ana, password: 'password', username: '<script>alert(1)</script>' });
  await send(page, '/sign-up');
  await refused(page, 'password', scripted);
  assert.equal(await page.inputValue('#email'), ana);
  await look_('sign-up-refused');
  await page.fill('#password', PASSWORD);
  await send(page, '/sign-up/code');
  const resend = page.locator('.resend button');
  if (scripted) {
    assert.equal(await resend.isDisabled(), true, 'the countdown runs');
    assert.match(await resend.innerText(), /\d/);
  }
  await look_('sign-up-code');
  await page.reload();
  await at(page, '/sign-up/code');
  const first = await code(ana, 1);
  if (scripted) await resend.and(page.locator(':enabled')).waitFor({ timeout: 10_000 });
  else await new Promise((resolve) => setTimeout(resolve, 3000));
  await resend.click();
  await page.locator('.notice').waitFor();
  const second = await code(ana, 2);
  await page.fill('#code', first === second ? '000000' : first);
  await send(page, '/sign-up/code');
  await refused(page, 'code', scripted);
  await look_('sign-up-code-refused');
  await page.fill('#code', `${second.slice(0, 3)} ${second.slice(3)}`);
  await send(page, '/sign-in');
  await page.locator('.notice').waitFor();
  assert.equal(await page.inputValue('#email'), ana);
  await look_('sign-in-ready');

  // Sign-in: refused, then taken, and back to where one wanted to go.
  await page.goto('/account/devices?x=y');
  await at(page, '/sign-in');
  await fill(page, { email: ana, password: OTHER });
  await send(page, '/sign-in');
  await refused(page, null, scripted);
  await look_('sign-in-refused');
  if (scripted) {
    await page.fill('#password', PASSWORD);
    await page.locator('.with-button button').click();
    assert.equal(await page.getAttribute('#password', 'type'), 'text');
  }
  await page.fill('#password', PASSWORD);
  await send(page, '/account/devices');
  await look_('devices');
  const cookies = await context.cookies();
  for (const cookie of cookies) {
    assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, 'Lax', '/'], cookie.name);
  }
  assert.ok(cookies.some(({ name }) => name.endsWith('usermgr-refresh')));
  assert.equal(await page.evaluate(() => document.cookie + JSON.stringify({ ...localStorage, ...sessionStorage })), '{}');

  // The account: the name comes out as it was typed, and is changed.
  await page.goto('/account');
  assert.equal(await page.inputValue('#username'), '<script>alert(1)</script>');
  await look_('account');
  await fill(page, { username: 'Ana' });
  await page.selectOption('#locale', 'es');
  await send(page, '/account');
  await page.locator('.notice').waitFor();
  assert.equal(await page.getAttribute('html', 'lang'), 'es');
  await page.locator('footer button[value=en]').click();
  await page.locator('html[lang=en]').waitFor({ state: 'attached' });
  assert.equal(new URL(page.url()).pathname, '/account');

  // Another device is signed out from here.
  const elsewhere = await open(browser, options);
  await signIn(elsewhere.page, ana, PASSWORD);
  await page.goto('/account/devices');
  assert.equal(await page.locator('.rows li').count(), 2);
  await look_('devices-two');
  await send(page, '/account/devices', 'form[action$="/end-others"] button');
  await page.locator('.notice').waitFor();
  assert.equal(await page.locator('.rows li').count(), 1);
  await elsewhere.page.goto('/account');
  await at(elsewhere.page, '/sign-in');
  await signIn(elsewhere.page, ana, PASSWORD);
  await page.goto('/account/devices');
  await page.locator('.rows form button').click();
  await page.locator('.notice').waitFor();
  await elsewhere.page.goto('/account');
  await at(elsewhere.page, '/sign-in');
  await elsewhere.context.close();

  // The password.
  await page.goto('/account/password');
  await look_('password');
  await fill(page, { current_password: OTHER, new_password: OTHER, confirmation_password: OTHER });
  await send(page, '/account/password');
  await refused(page, 'current_password', scripted);
  await fill(page, { current_password: PASSWORD, new_password: OTHER, confirmation_password: OTHER });
  await send(page, '/account/password');
  await page.locator('.notice').waitFor();

  // The address, and undoing it from the old one.
  await page.goto('/account/email');
  await look_('email');
  await fill(page, { new_email: moved, password: PASSWORD });
  await send(page, '/account/email');
  await refused(page, 'password', scripted);
  await fill(page, { new_email: moved, password: OTHER });
  await send(page, '/account/email/code');
  await look_('email-code');
  await page.fill('#code', await code(moved, 1));
  await send(page, '/account/email');
  await page.locator('.notice').waitFor();
  assert.ok((await page.innerText('main')).includes(moved));

  // The data.
  await page.goto('/account/data');
  await look_('data');
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('form[action="/account/export"] button')]);
  assert.equal(download.suggestedFilename(), 'account.json');
  assert.equal(JSON.parse(readFileSync(await download.path(), 'utf8')).user.email, moved);

  // mails to the old address: two codes, the welcome, the changed password, the requested change, the change with the link
  const undo = await link(ana, 6);
  assert.ok(undo.startsWith(`${base}/undo-email-change#token=`));
  if (scripted) {
    await page.goto(undo);
    await look_('undo');
    assert.equal(await page.evaluate(() => location.hash), '', 'the token has left the address');
    await send(page, '/sign-in');
    await page.locator('.notice').waitFor();
    await page.goto(undo.replace('token=', 'token=x'));
    await send(page, '/undo-email-change');
    await refused(page, null, scripted);
    await look_('undo-refused');
    // The link to set a password came by that.
    await page.goto(await link(ana, 7));
    await look_('reset');
    await fill(page, { new_password: 'short', confirmation_password: 'short' });
    await send(page, '/reset-password');
    await refused(page, 'new_password', scripted);
    await look_('reset-refused');
    await fill(page, { new_password: PASSWORD, confirmation_password: PASSWORD });
    await send(page, '/sign-in');
    await page.locator('.notice').waitFor();
  } else {
    await page.goto(undo);
    assert.equal(await page.locator('main button').isVisible(), false);
    assert.equal(await page.locator('main .summary').first().isVisible(), true, 'it says that it needs a script');
    await look_('undo');
  }
  const email = scripted ? ana : moved;
  const password = scripted ? PASSWORD : OTHER;

  // A forgotten password.
  await page.goto('/forgot-password');
  if (!scripted) await page.click('.who button');
  await page.goto('/forgot-password');
  await look_('forgot');
  await page.fill('#email', 'nobody');
  await page.evaluate(() => document.querySelector('main form').setAttribute('novalidate', ''));
  await send(page, '/forgot-password');
  await refused(page, 'email', scripted);
  await page.fill('#email', email);
  await send(page, '/forgot-password/sent');
  await look_('forgot-sent');
  await page.goto('/reset-password');
  await look_('reset-without-token');
  assert.equal(await page.locator('main form').isVisible(), false);

  // Deleted, and signed out with it.
  await signIn(page, email, password);
  await page.goto('/account/data');
  await page.fill('#password', 'not the password');
  await page.click('button.risky');
  await refused(page, 'password', scripted);
  await look_('data-refused');
  await page.fill('#password', password);
  await send(page, '/sign-in', 'button.risky');
  await page.locator('.notice').waitFor();
  await page.goto('/account');
  await at(page, '/sign-in');
  await page.goto('/nothing-here');
  await look_('not-found');
  assert.deepEqual(complaints, []);
  await context.close();
  console.log(`ok flows, ${name}`);
}

async function administration(name, options) {
  const { context, page, complaints } = await open(browser, options);
  const look_ = (what) => look(page, `${name}-admin-${what}`);
  const bob = `bob-${name}@example.org`;
  await page.goto('/admin/users?q=bob');
  await at(page, '/sign-in');
  await fill(page, { email: ADMIN, password: PASSWORD });
  await send(page, '/admin/users');
  assert.equal(await page.inputValue('#q'), 'bob');
  await look_('users-none');

  await page.goto('/admin/invite');
  await look_('invite');
  await fill(page, { email: bob, username: 'Bob' });
  await page.click('main button.main');
  await page.waitForURL(/\/admin\/users\/[0-9a-f-]{36}$/);
  await page.locator('.notice').waitFor();
  const user = new URL(page.url()).pathname;
  await look_('user');

  // Who was invited sets the account up.
  const guest = await open(browser, options);
  await guest.page.goto('/first-time-setup');
  await look(guest.page, `${name}-setup`);
  await fill(guest.page, { email: bob, code: await code(bob, 1), new_password: OTHER, confirmation_password: 'else' });
  await send(guest.page, '/first-time-setup');
  await refused(guest.page, 'confirmation_password', true);
  await fill(guest.page, { code: await code(bob, 1), new_password: OTHER, confirmation_password: OTHER });
  await send(guest.page, '/account');
  await guest.page.goto('/admin');
  assert.equal(await guest.page.locator('main h1').count(), 1);
  await look(guest.page, `${name}-forbidden`);
  assert.equal(await guest.page.locator('a[href="/admin"]').count(), 0, 'nothing leads there');

  // Roles, status, sessions.
  await page.goto(user);
  await page.check('input[value=admin]');
  await send(page, user, 'form[action$="/roles"] button');
  await page.locator('.notice').waitFor();
  assert.equal(await page.isChecked('input[value=admin]'), true);
  await page.uncheck('input[value=admin]');
  await send(page, user, 'form[action$="/roles"] button');
  await page.locator('.notice').waitFor();
  await look_('user-with-session');
  await send(page, user, 'form[action$="/sessions"] button');
  await page.locator('.notice').waitFor();
  await guest.page.goto('/account');
  await at(guest.page, '/sign-in');
  await send(page, user, 'form[action$="/status"] button');
  await page.locator('.notice').waitFor();
  await fill(guest.page, { email: bob, password: OTHER });
  await send(guest.page, '/sign-in');
  await refused(guest.page, null, true);
  await send(page, user, 'form[action$="/status"] button');
  await guest.context.close();

  // The last administrator stays.
  await page.goto('/admin/users?role=admin');
  await look_('users');
  await page.click('tbody a');
  await page.waitForURL(/\/admin\/users\/[0-9a-f-]{36}$/);
  await page.locator('form[action$="/status"] button').click();
  await refused(page, null, true);
  await look_('user-refused');

  await page.goto('/admin/mails');
  await look_('mails');
  await page.goto('/admin/mails?status=dead');
  await look_('mails-dead');
  await page.goto('/admin/audit?event=sign_in');
  await look_('audit');
  await page.goto(`${user}/delete`);
  await look_('delete');
  await send(page, '/admin/users', 'button.risky');
  await page.locator('.notice').waitFor();
  await page.goto(user);
  assert.equal((await page.goto(user)).status(), 404);
  await page.click('.who button');
  await at(page, '/sign-in');
  assert.equal((await context.cookies()).some(({ name: cookie }) => cookie.endsWith('-refresh') || cookie.endsWith('-access')), false);
  // What was read before is not to be read again by going back.
  await page.goBack();
  assert.equal(await page.locator('tbody').count(), 0);
  assert.deepEqual(complaints, []);
  await context.close();
  console.log(`ok administration, ${name}`);
}

// A page of somebody else's posts a form here, with the cookies that a browser gives along, and shows a page in a frame.
async function elsewhere() {
  const { context, page } = await open(browser);
  await signIn(page, ADMIN, PASSWORD);
  const other = await context.newPage();
  await other.route('http://other.localhost/**', (route) =>
    route.fulfill({
      contentType: 'text/html',
      body: `<form method="post" action="${base}/account/devices/end-others"><button>x</button></form><iframe src="${base}/sign-in"></iframe>`,
    }),
  );
  await other.goto('http://other.localhost/');
  const [answer] = await Promise.all([
    other.waitForResponse((response) => response.request().method() === 'POST'),
    other.click('button'),
  ]);
  assert.equal(answer.status(), 403);
  await look(other, 'foreign-form');
  await other.goto('http://other.localhost/');
  const frame = other.frames().find((found) => found !== other.mainFrame());
  assert.equal(await frame.locator('form').count().catch(() => 0), 0, 'no page stands in a frame');
  await context.close();
  console.log('ok forms and frames of others');
}

// Tabs that renew the session at the same time stay signed in.
async function tabs() {
  const { context, page } = await open(browser);
  await signIn(page, ADMIN, PASSWORD);
  const access = (await context.cookies()).find(({ name }) => name.endsWith('-access'));
  for (let round = 0; round < 3; round += 1) {
    await context.clearCookies({ name: access.name });
    const opened = await Promise.all(Array.from({ length: 8 }, () => context.newPage()));
    const answers = await Promise.all(opened.map((tab) => tab.goto('/account')));
    assert.deepEqual(answers.map((answer) => new URL(answer.url()).pathname), Array(8).fill('/account'));
    await Promise.all(opened.map((tab) => tab.close()));
  }
  await context.close();
  console.log('ok parallel tabs');
}

// A whole sign-in by the keyboard alone, and the link that skips to the content.
async function keyboard() {
  const { context, page } = await open(browser);
  await page.goto('/sign-in');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  await page.keyboard.type(ADMIN);
  await page.keyboard.press('Tab');
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press('Enter');
  await at(page, '/account');
  await context.close();
  console.log('ok by the keyboard');
}

try {
  await flows('en', { locale: 'en-GB', viewport: { width: 1100, height: 800 } });
  await flows('es-phone', { locale: 'es-MX', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await flows('no-script', { locale: 'en-GB', javaScriptEnabled: false });
  await administration('en', { locale: 'en-GB', viewport: { width: 1100, height: 800 } });
  await administration('es-phone', { locale: 'es-ES', viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await elsewhere();
  await tabs();
  await keyboard();
} finally {
  await browser.close();
}
